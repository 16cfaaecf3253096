"""Draw docs/images/demo.png from what a demo left: bicubic, the demo's own student and HR of some photos.

python docs/make_demo_picture.py outputs/demo docs/images/demo.png
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLUMNS = ("bicubic", "demo LoRA", "HR")
PHOTOS = ("coffee", "rocket", "chelsea")
SIDE = 256
TITLE = 28  # pixels above the columns, for their names

folder, output = Path(sys.argv[1]), sys.argv[2]
sheet = Image.new("RGB", (SIDE * len(COLUMNS), SIDE * len(PHOTOS) + TITLE), "white")
for column, name in enumerate(COLUMNS):
    ImageDraw.Draw(sheet).text((column * SIDE + 4, 4), name, fill="#222222", font=ImageFont.load_default(17))
    for row, photo in enumerate(PHOTOS):
        path = folder / "photos" if name == "HR" else folder / "pictures" / name
        image = Image.open(path / f"{photo}.png").convert("RGB")

        sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (column * SIDE, row * SIDE + TITLE))
sheet.save(output, optimize=True)
