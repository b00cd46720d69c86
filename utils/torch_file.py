"""Files as `torch.save` writes them: zips whose sums torch does not compare itself."""

import zipfile
from pathlib import Path


def check_sums(path: Path) -> None:
    """Raises BadZipFile where a part of a zip is not what was written, or claims to be packed:
    torch packs nothing, and would unpack whatever size a part claims."""
    with zipfile.ZipFile(path) as parts:
        if sum(part.file_size for part in parts.infolist()) > path.stat().st_size:
            raise zipfile.BadZipFile("torch packs nothing, this is packed")
        if damaged := parts.testzip():
            raise zipfile.BadZipFile(f"{damaged} in it is damaged")
