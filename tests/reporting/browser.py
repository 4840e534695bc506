"""A headless Chromium, driven through a pipe by its DevTools protocol."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import threading

_NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')

_MOST_SECONDS = 300

# What a page is, as its own JavaScript sees it.
_LOOK = """({
  images: [...document.images].map(i => [i.complete, i.naturalWidth]),
  tables: [...document.querySelectorAll('table')].map(t => t.rows.length),
  headings: [...document.querySelectorAll('h1,h2')].map(h => h.innerText),
  overflow: document.documentElement.scrollWidth - window.innerWidth,
  shown: [...document.images].map(i => i.getBoundingClientRect().width),
  links: [...document.links].map(a => a.href),
})"""


def find():
  """Returns the path of a browser, or None if there is none."""
  return next(filter(None, map(shutil.which, _NAMES)), None)


class Browser:
  """A page of a browser; see `opened`."""

  def __init__(self, to_browser, from_browser):
    self._to, self._from = to_browser, from_browser
    self._count, self._session = 0, None
    self.complaints = []
    target = self.call('Target.createTarget', url='about:blank')['targetId']
    attached = self.call('Target.attachToTarget', targetId=target, flatten=True)
    self._session = attached['sessionId']
    for domain in ('Page', 'Runtime', 'Log', 'Network'):
      self.call(f'{domain}.enable')

  def call(self, method, **parameters):
    """Calls a method of the protocol, and returns its result."""
    self._count += 1
    message = {'id': self._count, 'method': method, 'params': parameters}
    if self._session is not None:
      message['sessionId'] = self._session
    self._to.write(json.dumps(message).encode() + b'\0')
    self._to.flush()
    while (found := self._next()).get('id') != message['id']:
      pass
    assert 'error' not in found, found
    return found['result']

  def open(self, path, width, height=900):
    """Opens a file in a window of a size, and returns what `_LOOK` sees."""
    self.call(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=width < 600,
    )
    self.call('Page.navigate', url=f'file://{os.path.abspath(path)}')
    while self._next().get('method') != 'Page.loadEventFired':
      pass
    found = self.call('Runtime.evaluate', expression=_LOOK, returnByValue=True)
    return found['result']['value']

  def screenshot(self, path):
    """Writes the whole page as PNG."""
    found = self.call('Page.captureScreenshot', captureBeyondViewport=True)
    with open(path, 'wb') as file:
      file.write(base64.b64decode(found['data']))

  def _next(self):
    """Returns the next message, and keeps complaints of the page."""
    text = bytearray()
    while (byte := self._from.read(1)) != b'\0':
      assert byte, 'The browser has ended.'
      text += byte
    message = json.loads(text)
    method, given = message.get('method'), message.get('params', {})
    is_request = method == 'Network.requestWillBeSent'
    if method in (
      'Runtime.exceptionThrown',
      'Runtime.consoleAPICalled',
      'Log.entryAdded',
      'Network.loadingFailed',
    ) or (is_request and given['request']['url'].startswith('http')):
      self.complaints.append(given)
    return message


@contextlib.contextmanager
def opened(profile):
  """Starts a browser within a `with` statement.

  Args:
    profile: Directory for the files of the browser.
  """
  theirs_in, ours_out = os.pipe()
  ours_in, theirs_out = os.pipe()
  # The browser reads from the descriptor 3 and writes to 4.
  command = (
    f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$0" "$@" 2>/dev/null >&2'
  )
  arguments = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--remote-debugging-pipe',
    f'--user-data-dir={profile}',
  ]
  process = subprocess.Popen(
    ['bash', '-c', command, find(), *arguments],
    pass_fds=(theirs_in, theirs_out),
  )
  os.close(theirs_in)
  os.close(theirs_out)
  # A browser that hangs ends a test, which would wait for ever.
  watchdog = threading.Timer(_MOST_SECONDS, process.kill)
  watchdog.start()
  try:
    with open(ours_out, 'wb') as to_browser, open(ours_in, 'rb') as answers:
      browser = Browser(to_browser, answers)
      yield browser
      to_browser.write(b'{"id": 1000000, "method": "Browser.close"}\0')
      to_browser.flush()
  finally:
    watchdog.cancel()
    process.terminate()
    process.wait()
