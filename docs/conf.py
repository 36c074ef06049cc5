"""The documentation site: `make site` builds it with Sphinx into out/site.

Sphinx reads the whole checkout, so that a link between any two pages is the same path on GitHub and here, wherever
they lie. Pages are those that ``include_patterns`` names. A link to any other file, such as an example, gives the file.
`index.md` has the first and the last part of README, and the contents of the site.
"""

from __future__ import annotations

from numpydoc.xref import DEFAULT_LINKS

from ap_spark import __all__, __version__

project = "ap_spark"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
root_doc = "index"
include_patterns = [
    "index.md",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/results.md",
    "data/LICENSE.md",
    "docs/**.md",
]

myst_heading_anchors = 4  # links such as page.md#a-heading, as GitHub has them; one that leads nowhere is a warning
highlight_language = "none"  # of indented blocks, which are diagrams and formulas
smartquotes = False  # -- is an option

default_role = "py:obj"  # `name` in a docstring is a link if it is documented
autodoc_typehints = "none"  # docstrings have the types
autodoc_member_order = "bysource"
maximum_signature_line_length = 80
numpydoc_show_class_members = False  # autodoc has them
numpydoc_xref_param_type = True  # types that are documented here are links; others, such as int, would lead elsewhere
numpydoc_xref_ignore = "all"
numpydoc_xref_aliases = {name: name for name in DEFAULT_LINKS} | {name: f"ap_spark.{name}" for name in __all__}

html_theme = "furo"
html_title = f"ap_spark {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
