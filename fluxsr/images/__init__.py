"""Reads, writes, lists and matches picture files, and converts and resizes pixels.

It imports no other package of the library, and every package that handles pictures uses it. Names are imported on first use,
so that `import fluxsr.images` alone loads neither torch nor Pillow.
"""

from typing import TYPE_CHECKING

from fluxsr.lazy import lazy_names

if TYPE_CHECKING:
    from fluxsr.images.formats import FORMATS, check_format
    from fluxsr.images.listing import images_by_name, list_images
    from fluxsr.images.matching import check_sizes, match_names
    from fluxsr.images.metadata import Picture
    from fluxsr.images.read import MAX_PIXELS, read_image, read_picture, read_pixels, read_size
    from fluxsr.images.write import write_image, write_picture

_HOME = {
    "FORMATS": "formats",
    "MAX_PIXELS": "read",
    "Picture": "metadata",
    "check_format": "formats",
    "check_sizes": "matching",
    "images_by_name": "listing",
    "list_images": "listing",
    "match_names": "matching",
    "read_image": "read",
    "read_picture": "read",
    "read_pixels": "read",
    "read_size": "read",
    "write_image": "write",
    "write_picture": "write",
}

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "Picture",
    "check_format",
    "check_sizes",
    "images_by_name",
    "list_images",
    "match_names",
    "read_image",
    "read_picture",
    "read_pixels",
    "read_size",
    "write_image",
    "write_picture",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
