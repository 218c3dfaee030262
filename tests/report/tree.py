"""A page as a list of elements with their attributes and text, read by the standard library."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "wbr", "img", "input"}


@dataclass
class Element:
    tag: str
    attributes: dict
    parents: list
    texts: list = field(default_factory=list)

    @property
    def text(self):
        return " ".join("".join(self.texts).split())

    def has(self, **attributes):
        return all(self.attributes.get(name.replace("_", "-")) == value for name, value in attributes.items())


class Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.elements, self.open = [], []

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), f"{tag} has an attribute twice"
        self.elements.append(Element(tag, dict(attributes), list(self.open)))
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_startendtag(self, tag, attributes):
        self.elements.append(Element(tag, dict(attributes), list(self.open)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1].tag == tag, f"</{tag}> closes {self.open[-1].tag}"
        self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element.texts.append(data)


class Page(list):
    """The elements of a page in their order."""

    def having(self, name):
        return [element for element in self if name in element.attributes]

    def lead(self, anchor):
        """Return the paragraph under the title of a section."""
        leads = (element for element in self if element.has(**{"class": "lead"}))
        return next(one.text for one in leads if any(parent.has(id=anchor) for parent in one.parents))


def read(path):
    """Return a page; one that is not well formed fails."""
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == [], [element.tag for element in reader.open]
    return Page(reader.elements)
