"""Save a picture of a web page: python docs/screenshot.py URL OUT.png.

Needs Chromium (Debian: apt-get install chromium). Used for the pictures of MLflow in
docs/studies.md, with the command and the link that run_study.py prints; MLflow opens a chat panel
on a first visit, a quarter of the page on its right, which is cut off:

    mlflow ui --backend-store-uri sqlite:///$PWD/runs/mlflow.db --host 127.0.0.1 --port 5000 &
    python docs/screenshot.py "LINK" docs/mlflow.png --width 2300 --keep 0.753
    python docs/screenshot.py "LINK&compareRunsMode=CHART" docs/mlflow_charts.png --height 2120 \\
        --keep 0.745
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image

QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--hide-scrollbars"]  # fmt: skip


def main() -> int:
    """Exit code 0 where the picture was written."""
    parser = argparse.ArgumentParser(description="Save a picture of a web page.")
    parser.add_argument("url")
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=2000)
    parser.add_argument("--height", type=int, default=760)
    parser.add_argument("--keep", type=float, default=1.0, help="share of the width, from the left")
    parser.add_argument("--seconds", type=int, default=30, help="time the page gets to load")
    given = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.stderr.write("no chromium on PATH; on Debian: apt-get install chromium\n")
        return 2
    wait_for(given.url, seconds=60)
    shoot(browser, given.url, given.out, given.width, given.height, given.seconds)
    with Image.open(given.out) as picture:
        kept = picture.convert("RGB").crop(
            (0, 0, round(picture.width * given.keep), picture.height)
        )
    # half the bytes; what covers little, such as dots, keeps its colour
    kept.quantize(256, Image.Quantize.MAXCOVERAGE).save(given.out, optimize=True)
    sys.stdout.write(f"{given.out}: {given.out.stat().st_size:,} bytes\n")
    return 0


def wait_for(url: str, seconds: float) -> None:
    """Return once the server answers; raises TimeoutError where it does not in `seconds`."""
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            if time.monotonic() > end:
                raise TimeoutError(f"{url} does not answer after {seconds:g} s") from error
            time.sleep(0.5)


def shoot(browser: str, url: str, out: Path, width: int, height: int, seconds: int) -> None:
    """Write what `browser` shows of `url` to `out`; raises where it writes nothing."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--no-sandbox", *QUIET, f"--user-data-dir={profile}",
                   f"--window-size={width},{height}", f"--virtual-time-budget={seconds * 1000}",
                   f"--screenshot={out.resolve()}", url]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120)
    if not out.exists():
        raise RuntimeError(f"{browser} wrote no picture:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
