"""The directive `sliders` puts sliders over a table of docs/course/tables/ on a page.

Its argument is the table's name, and its content the caption, which says what to look for.
"""

from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

STATIC = "sliders.css", "sliders.js"


class Sliders(SphinxDirective):
    """A figure with the table inside, which `_static/sliders.js` draws."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Makes the figure, with its content as the caption."""
        name, path = self.env.relfn2path(f"tables/{self.arguments[0]}.json")
        self.env.note_dependency(name)
        table = Path(path).read_text().replace("</", "<\\/")
        start = f'<figure class="sliders"><script type="application/json">{table}</script>'
        return [
            nodes.raw("", f"{start}<figcaption>", format="html"),
            *self.parse_content_to_nodes(),
            nodes.raw("", "</figcaption></figure>", format="html"),
        ]


def add_files(app, page, template, context, doctree):
    """Adds the script and its style to the pages that have sliders."""
    raw = doctree.findall(nodes.raw) if doctree else []
    if any('class="sliders"' in node.astext() for node in raw):
        app.add_css_file(STATIC[0])
        app.add_js_file(STATIC[1], loading_method="defer")


def setup(app):
    """Adds the directive to Sphinx."""
    app.add_directive("sliders", Sliders)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True}
