"""A report as one HTML file: no server, no other files."""

import base64
from collections.abc import Mapping
import io
import os

import jinja2
import markdown
from PIL import Image

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
figure { margin: 2rem 0; overflow-x: auto; }
img { max-width: 100%; height: auto; }
/* Text in figures stays legible on phones, where wide ones scroll. */
@media (max-width: 700px) { img { max-width: max(100%, 640px); } }
figcaption { color: #555; }
</style>
</head>
<body>
{{ body }}
{% if figures %}
<h2>Figures</h2>
{% endif %}
{% for figure in figures %}
<figure>
<img src="data:{{ figure.kind }};base64,{{ figure.content }}"
  alt="{{ figure.caption }}"{{ figure.width }}>
<figcaption>{{ figure.caption }}</figcaption>
</figure>
{% endfor %}
</body>
</html>
""",
  autoescape=True,
  trim_blocks=True,
)
# Of CSS.
_PIXELS_PER_INCH = 96
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
        'width': _width(name, content),
      }
      for name, (content, caption) in pictures.items()
    ],
  )


def _width(name: str, content: bytes) -> jinja2.utils.markupsafe.Markup:
  """Returns the attribute that shows a PNG at its size in inches.

  So text has one size in all figures, whatever their resolution.
  """
  attribute = ''
  if name.endswith('.png'):
    with Image.open(io.BytesIO(content)) as image:
      dpi, _ = image.info.get('dpi', (_PIXELS_PER_INCH, None))
      inches = image.width / float(dpi)
    attribute = f' width="{round(inches * _PIXELS_PER_INCH)}"'
  return jinja2.utils.markupsafe.Markup(attribute)
