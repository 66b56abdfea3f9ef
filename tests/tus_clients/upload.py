"""``python upload.py <endpoint> <file> <options as JSON>``: upload the file with tuspy, and print its URL.

``url`` in the options resumes that upload; ``stop_at`` stops at that offset.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tusclient.client import TusClient


def main(endpoint: str, path: str, options: dict[str, Any]) -> str:
    stop_at = options.pop("stop_at", None)
    uploader = TusClient(endpoint).uploader(path, **{"retry_delay": 0, **options})
    uploader.upload(stop_at=stop_at)
    return str(uploader.url)


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
