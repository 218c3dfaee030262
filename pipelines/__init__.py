"""The scikit-learn heads, one recipe a file; it imports none of them.

A recipe is a module with two functions: ``build()`` returns an unfitted
:class:`~sklearn.pipeline.Pipeline` that scales its own input, and ``grid()`` returns the search space of
its parameters, empty where nothing needs choosing. Values run from the most regularised to the least,
because a tie goes to the first. Whether it wants class labels or numbers, scikit-learn knows from its last
step. A recipe needs scikit-learn and nothing else, so it can be copied, edited, and named by its path
wherever a head is named.
"""

__all__: list[str] = []
