"""The report as one HTML file."""

import base64
import html.parser
import io

from PIL import Image

from tff_fedsa.reporting import html_report

_VOID = ('meta', 'img', 'br')


class _Page(html.parser.HTMLParser):
  """Collects tags, and checks that they are nested."""

  def __init__(self):
    super().__init__()
    self.open, self.tags, self.links = [], [], []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.links += [v for k, v in attrs if k in ('src', 'href')]
    if tag not in _VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def _png():
  """A picture of 3 by 1 inches."""
  content = io.BytesIO()
  Image.new('RGB', (450, 150)).save(content, 'png', dpi=(150, 150))
  return content.getvalue()


def test_everything_is_in_one_file():
  text = (
    '# a title\n\n| method | accuracy |\n|:--|--:|\n'
    '| FedSA | **0.9** |\n| <script>x</script> | <u>0.8</u> |\n\n'
    '*p* < 0.05 & more\n\n- a\n- b\n'
  )
  pictures = {
    'x.png': (_png(), 'what it shows "here"'),
    'y.svg': (b'<svg/>', 'another'),
  }
  written = html_report.render('a title', text, pictures)
  page = _Page()
  page.feed(written)
  page.close()
  assert not page.open
  assert page.tags.count('tr') == 3 and page.tags.count('li') == 2
  # Names are text.
  assert 'script' not in page.tags and '&lt;script' in written
  assert '<strong>0.9</strong>' in written and '<u>0.8</u>' in written
  assert 'p</em> &lt; 0.05 &amp; more' in written
  assert 'alt="what it shows &#34;here&#34;" width="288">' in written
  # Nothing is loaded from elsewhere.
  assert page.links == [
    'data:image/png;base64,' + base64.b64encode(_png()).decode(),
    'data:image/svg+xml;base64,' + base64.b64encode(b'<svg/>').decode(),
  ]
