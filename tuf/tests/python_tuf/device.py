"""python-tuf's client against a folder.

    device.py REPOSITORY STATE TARGET...    follows REPOSITORY from STATE/root.json; writes each target to standard output
"""

import sys
from pathlib import Path
from urllib.parse import unquote

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater


class Folder(FetcherInterface):
    """Answers from the disk, as a web server of static files would."""

    def _fetch(self, url):
        path = Path(unquote(url))
        if not path.is_file():
            raise DownloadHTTPError(f"no {path}", 404)
        yield path.read_bytes()


repository, state = map(Path, sys.argv[1:3])
targets = state / "targets"
targets.mkdir(exist_ok=True)
updater = Updater(
    str(state / "metadata"),
    f"{repository}/metadata/",
    str(targets),
    f"{repository}/targets/",
    fetcher=Folder(),
    bootstrap=(state / "root.json").read_bytes(),
)
updater.refresh()
for name in sys.argv[3:]:
    info = updater.get_targetinfo(name)
    if info is None:
        sys.exit(f"no target {name}")
    sys.stdout.buffer.write(Path(updater.download_target(info)).read_bytes())
