"""Draw docs/images/demo.png from a demo's report: LR, bicubic, the demo's own student and HR of some photos.

python docs/make_demo_picture.py outputs/demo/report.html docs/images/demo.png
"""

import base64
import io
import re
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLUMNS = ("LR", "bicubic", "demo LoRA", "HR")
PHOTOS = ("coffee", "rocket", "chelsea")
SIDE = 256
TITLE = 28  # pixels above the columns, for their names

report, output = sys.argv[1:]
text = Path(report).read_text("utf-8")
sheet = Image.new("RGB", (SIDE * len(COLUMNS), SIDE * len(PHOTOS) + TITLE), "white")
for column, name in enumerate(COLUMNS):
    ImageDraw.Draw(sheet).text((column * SIDE + 4, 4), name, fill="#222222", font=ImageFont.load_default(17))
for row, photo in enumerate(PHOTOS):
    part = text.split(f"<h3>{photo}</h3>")[1].split("<h3>")[0]
    for column, name in enumerate(COLUMNS):
        content = re.search(rf"alt='{name}' src='data:image/png;base64,([^']+)'", part).group(1)
        image = Image.open(io.BytesIO(base64.b64decode(content)))
        resample = Image.Resampling.NEAREST if name == "LR" else Image.Resampling.LANCZOS
        sheet.paste(image.resize((SIDE, SIDE), resample), (column * SIDE, row * SIDE + TITLE))
sheet.save(output, optimize=True)
