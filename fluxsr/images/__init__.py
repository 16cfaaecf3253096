"""Reads, writes, lists and matches picture files, and converts and resizes pixels.

It imports no other package of the library, and every package that handles pictures uses it. Names are imported on first use,
so that `import fluxsr.images` alone loads neither torch nor Pillow.
"""

from typing import TYPE_CHECKING

from fluxsr.lazy import lazy_names

if TYPE_CHECKING:
    from fluxsr.images.formats import (
        FORMATS as FORMATS,
        check_format as check_format,
    )
    from fluxsr.images.listing import (
        images_by_name as images_by_name,
        list_images as list_images,
    )
    from fluxsr.images.matching import (
        check_sizes as check_sizes,
        match_names as match_names,
    )
    from fluxsr.images.metadata import Picture as Picture
    from fluxsr.images.read import (
        MAX_PIXELS as MAX_PIXELS,
        read_image as read_image,
        read_picture as read_picture,
        read_pixels as read_pixels,
        read_size as read_size,
    )
    from fluxsr.images.write import (
        write_image as write_image,
        write_picture as write_picture,
    )

__getattr__, __dir__, __all__ = lazy_names(__name__)
