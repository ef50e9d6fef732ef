"""Pages in headless Chromium: what a reader's screen of some width would show."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

WIDTHS = (390, 1280)
_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
    "--dump-dom",
)
# Frames, as a window cannot be as narrow as a telephone.
_FRAMES = """<!doctype html><title>frames</title>{frames}<pre></pre><script>
onload = () => {{
  const all = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument.documentElement;
    const box = each => each.getBoundingClientRect();
    return {{
      width: frame.contentWindow.innerWidth,
      scrolls: page.scrollWidth,
      pictures: [...page.querySelectorAll("img")].map(
        each => [each.naturalWidth, box(each).left, box(each).right]),
      meanings: [...page.querySelectorAll("td.meaning")].map(each => box(each).width),
    }};
  }});
  document.querySelector("pre").textContent = JSON.stringify(all);
}};
</script>"""


def needs_chromium(test):
    """Marks a test that looks at a page; skips it where there is no Chromium."""
    skip = pytest.mark.skipif(_CHROMIUM is None, reason="there is no chromium on this machine")
    return pytest.mark.browser(skip(test))


def look(page: Path, folder: Path) -> dict[int, dict]:
    """{width of the screen: what is measured} of a page; `folder` holds what Chromium writes."""
    frames = "".join(
        f'<iframe width="{width}" height="900" style="border:0" src="{page.as_uri()}"></iframe>'
        for width in WIDTHS
    )
    outer = folder / "frames.html"
    outer.write_text(_FRAMES.format(frames=frames))
    ran = subprocess.run(
        [str(_CHROMIUM), *_FLAGS, f"--user-data-dir={folder / 'profile'}", outer.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = re.search(r"<pre>(\[.*\])</pre>", ran.stdout)
    assert found, ran.stderr
    return {each["width"]: each for each in json.loads(html.unescape(found[1]))}


def assert_readable(page: Path, folder: Path, pictures: int) -> dict[int, dict]:
    """At each width the page does not scroll sideways, and all its pictures are in view."""
    seen = look(page, folder)
    assert sorted(seen) == sorted(WIDTHS)
    for width, each in seen.items():
        assert each["scrolls"] <= width
        assert len(each["pictures"]) == pictures
        for natural, left, right in each["pictures"]:
            assert natural > 0 and 0 <= left < right <= width
    return seen
