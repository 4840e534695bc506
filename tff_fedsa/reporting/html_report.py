"""A report as one HTML file: no server, no other files."""

import base64
from collections.abc import Mapping
import os

import jinja2
import markdown

_TEMPLATE = jinja2.Template(
  """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 1200px; margin: 2rem auto; padding: 0 1.5rem; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px;
  font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #e4e4e4;
  white-space: nowrap; }
thead th { border-bottom: 2px solid #888; }
tbody tr:hover { background: #f4f7fa; }
figure { margin: 2rem 0; }
img { max-width: 100%; height: auto; }
figcaption { color: #555; }
</style>
</head>
<body>
{{ body }}
{% for figure in figures %}
<figure>
<img src="data:{{ figure.kind }};base64,{{ figure.content }}"
  alt="{{ figure.caption }}">
<figcaption>{{ figure.caption }}</figcaption>
</figure>
{% endfor %}
</body>
</html>
""",
  autoescape=True,
  trim_blocks=True,
)
_KINDS = {'.png': 'image/png', '.svg': 'image/svg+xml'}


def render(
  title: str, text: str, pictures: Mapping[str, tuple[bytes, str]]
) -> str:
  """Returns an HTML page with its pictures inside.

  Args:
    title: Title of the window.
    text: The report as Markdown, without its pictures.
    pictures: Content and caption by file name, .png or .svg.
  """
  # Names of runs and paths are text, not HTML: only our own underlines stay.
  escaped = text.replace('&', '&amp;').replace('<', '&lt;')
  for tag in ('u>', '/u>'):
    escaped = escaped.replace(f'&lt;{tag}', f'<{tag}')
  body = markdown.markdown(escaped, extensions=['tables', 'sane_lists'])
  body = body.replace('<table>', '<div class="wide"><table>')
  body = body.replace('</table>', '</table></div>')
  return _TEMPLATE.render(
    title=title,
    body=jinja2.utils.markupsafe.Markup(body),
    figures=[
      {
        'kind': _KINDS[os.path.splitext(name)[1]],
        'content': base64.b64encode(content).decode(),
        'caption': caption,
      }
      for name, (content, caption) in pictures.items()
    ],
  )
