"""`neurogate` whose commits another process can see: `python -m tests.promises.gateway_with_commit_flag FLAG run …`."""

import sys
from pathlib import Path

from gateway.cli import main
from tests.promises.commit_flag import CommitFlag, announce_commits

if __name__ == "__main__":
    announce_commits(CommitFlag(Path(sys.argv.pop(1))))
    main()
