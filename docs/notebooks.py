"""The role `notebooks` links to an archive of the lessons as notebooks, which the build makes.

The kept runs that a lesson reads are in the archive as well, where the lesson looks for them.
"""

import zipfile
from pathlib import Path

from docutils import nodes

DOCS = Path(__file__).parent
NAME = "course/notebooks.zip"
ABOUT = """\
The course of adamw_jax {version} as Jupyter notebooks. They need the library, in a clone of which

    python -m pip install '.[course]'

installs all that it takes; then run `jupyter lab` beside this file. The text is licensed under
CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/), the code under Apache-2.0.
"""


def link(name, rawtext, text, lineno, inliner, options=None, content=()):
    """Links the role's text to the archive, from the course's page."""
    return [nodes.reference(rawtext, text, refuri=Path(NAME).name)], []


def write_archive(app, error):
    """Writes the archive beside the course's page, of the notebooks that MyST-NB has made."""
    if error or app.builder.format != "html":
        return
    made = Path(app.env.mystnb_config.output_folder, "docs")
    names = [lesson.stem for lesson in sorted(DOCS.glob("course/[0-9]*.md"))]
    lessons = [made / f"course/{name}.ipynb" for name in names]
    text = "".join(lesson.read_text() for lesson in lessons)
    sweeps = [each for each in DOCS.glob("results/*/sweeps/*") if each.name in text]
    runs = [file for each in sweeps for file in each.glob("*/*")]
    with zipfile.ZipFile(Path(app.outdir, "docs", NAME), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.md", ABOUT.format(version=app.config.release))
        for root, files in (made, lessons), (DOCS, runs):
            for file in files:
                archive.write(file, file.relative_to(root))


def setup(app):
    """Adds the role to Sphinx, and the archive to the site."""
    app.add_role("notebooks", link)
    app.connect("build-finished", write_archive)
    return {"parallel_read_safe": True}
