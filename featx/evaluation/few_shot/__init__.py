"""How well a head does with a handful of labels: in episodes, and by labels per class."""
