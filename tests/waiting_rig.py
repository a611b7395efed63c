"""Makes the triggers of tests/plugins/psf-waiting-triggers known, as their installation would."""

import sys
from pathlib import Path

from pubsubflow import plugins

FOLDER = Path(__file__).parent / "plugins" / "psf-waiting-triggers"
if str(FOLDER) not in sys.path:
    sys.path.insert(0, str(FOLDER))
    plugins._triggers.cache_clear()
