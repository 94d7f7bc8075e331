"""How Sphinx builds the site: `make docs` writes it to outputs/site.

The sources are the repository, so that every link between documents holds here as it does where
they are read as files. The pages need no network: mathematics is MathML, and nothing is fetched.
"""

import re
from pathlib import Path

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx import addnodes
from sphinx.util.logging import getLogger

import adamw_jax

logger = getLogger(__name__)
mathml = LatexToMathML()
project = "adamw_jax"
author = copyright = "the adamw_jax authors"
release = adamw_jax.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "docs.notebooks",
    "docs.sliders",
]
root_doc = "docs/index"
include_patterns = ["docs/**", "experiments/README.md"]
exclude_patterns = [".*", "outputs", "build", "dist", "data", "docs/course/solutions", "**.ipynb"]
nitpicky = True

html_title = "adamw_jax"
html_theme = "furo"
pygments_dark_style = "github-dark"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_root"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_cache_path = "outputs/notebooks"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

# In a docstring, `name` links to what it names and is code otherwise. Types are in the source.
default_role = "py:obj"
autodoc_typehints = "none"
add_module_names = False
napoleon_use_param = napoleon_use_ivar = napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]

# The names that the docstrings mention, in Sphinx's first, plain format.
intersphinx_mapping = {
    "jax": ("https://docs.jax.dev/en/latest", "docs/inventories/jax.txt"),
    "optax": ("https://optax.readthedocs.io/en/latest", "docs/inventories/optax.txt"),
}


def escape(match):
    """Ends code before a letter, as in `Variable`s, and escapes what else has a meaning."""
    code, letter = match.groups()
    return f"{code}\\ {letter}" if letter else code or f"\\{match[0]}"


def docstring_to_rest(app, what, name, obj, options, lines):
    """Marks up a docstring, which is plain text: indented code, |absolute values|, `name`s."""
    text = re.sub(r"^(\S.*\n\n)(?=    )", r"\1::\n\n", "\n".join(lines), flags=re.MULTILINE)
    text = re.sub(r"^(Returns:\n  +)", r"\1: ", text, flags=re.MULTILINE)  # no type before a colon
    text = re.sub(r"(`[^`]*`)(\w?)|\||_(?!\w)", escape, text)
    lines[:] = text.split("\n")


def title_tables(app, page, source):
    """Gives the tables that experiments write a title, which a page needs."""
    if page.endswith("/tables"):
        source[0] = f"# All tables of {Path(page).parent.name}\n\n{source[0]}"


def fit_links(app, doctree):
    """Fits links between files to a site: titles for their names, and no link to a folder."""
    for node in list(doctree.findall(addnodes.pending_xref)):
        if node["reftype"] != "myst":
            continue
        if Path(app.env.relfn2path(node["reftarget"])[1]).is_dir():
            node.replace_self(node.children)
        elif node["refdomain"] == "doc" and node.astext().endswith(".md"):
            node["refexplicit"] = False
            node[0].clear()


def trim_code(app, doctree):
    """Leaves out the empty line that ends a block of code whose output doctest compares."""
    for node in doctree.findall(nodes.literal_block):
        node.rawsource = node.astext().rstrip()
        node[:] = [nodes.Text(node.rawsource)]


def mark_words(app, doctree):
    """Marks the cells of a table that hold more than a word or two, which need some width."""
    for cell in doctree.findall(nodes.entry):
        if len(cell.astext()) > 16:
            cell["classes"].append("words")


def link_modules(app, doctree, page):
    """Links a module to its page of source, which it has if something in it is documented."""
    for node in list(doctree.findall(addnodes.download_reference)):
        file = app.env.relfn2path(node["reftarget"], page)[0].removesuffix(".py")
        if app.env._viewcode_modules.get(file.replace("/", ".")):
            uri = app.builder.get_relative_uri(page, f"_modules/{file}")
            node.replace_self(nodes.reference("", "", *node.children, refuri=uri, internal=True))


def leave_unlinked(app, env, node, contnode):
    """Shows code in a docstring as such where it is not the name of something documented."""
    return contnode if node["reftype"] == "obj" else None


def visit_math(translator, node):
    """Writes a formula as MathML, which browsers show without scripts."""
    block = isinstance(node, nodes.math_block)
    try:
        formula = mathml.convert_with_local_state(node.astext(), displaystyle=block)
    except LatexError as error:
        logger.warning("This formula has no MathML: %s", error, location=node)
        raise nodes.SkipNode from error
    translator.body.append(f'<div class="formula">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def setup(app):
    """Adds the functions above to Sphinx."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("autodoc-process-docstring", docstring_to_rest, priority=400)  # before napoleon
    app.connect("source-read", title_tables)
    app.connect("doctree-read", fit_links)
    app.connect("doctree-read", trim_code)
    app.connect("doctree-read", mark_words)
    app.connect("doctree-resolved", link_modules)
    app.connect("missing-reference", leave_unlinked, priority=900)  # after the inventories
