"""The door to training: the Parquet schema that every stage writes and the trainer reads.

One row is one picture, synthetic or real, kept or rejected. `datasets.load_dataset("parquet", ...)` decodes `image`.
"""

import json

import pyarrow as pa

LINE = pa.struct(
    [
        pa.field("text", pa.string()),
        pa.field("lang", pa.string()),  # en, zh or mixed
        pa.field("quad_px", pa.list_(pa.float32(), 8)),  # corners x, y: start-top, end-top, end-bottom, start-bottom
        pa.field("size_px", pa.float32()),  # the em; null when it is not known (real pictures)
        pa.field("ink_height_px", pa.float32()),
        pa.field("face_id", pa.string()),
        pa.field("ink_rgb", pa.list_(pa.uint8(), 3)),
        pa.field("ground_rgb", pa.list_(pa.uint8(), 3)),
        pa.field("contrast", pa.float32()),  # WCAG 2.2 ratio, 1 to 21
        pa.field("clutter", pa.float32()),  # standard deviation of the ground's luma, 0 to 127.5
        pa.field("opacity", pa.float32()),
        pa.field("block", pa.int32()),
        pa.field(
            "role", pa.string()
        ),  # what the block is on its page: paragraph, heading, cell, ...; null when unknown
        pa.field("read_ned", pa.float32()),  # NED of what OCR read against `text`; null when not read
        pa.field("clean_ned", pa.float32()),  # the same for the line in black on white; null when not read
        pa.field("legibility", pa.float32()),  # chance that the line is legible, 0 to 1, by the calibrated model
    ]
)

SCHEMA = pa.schema(
    [
        pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])),
        pa.field(
            "row_id", pa.string()
        ),  # unique in the run: "{recipe}-{shard}-{row}-{attempt}" or the digest of a real file
        pa.field("source", pa.string()),  # "synthetic" or "real"
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("lang", pa.string()),
        pa.field("text", pa.string()),  # lines in reading order, joined by line feeds
        pa.field("lines", pa.list_(LINE)),
        pa.field("caption", pa.string()),  # the picture in words, from its spec; null for real pictures
        pa.field("spec", pa.string()),  # PageSpec as JSON; null for real pictures
        # provenance
        pa.field("recipe_hash", pa.string()),
        pa.field("seed", pa.int64()),
        pa.field("shard", pa.int32()),
        pa.field("row", pa.int32()),
        pa.field("attempt", pa.int32()),  # how many draws of this address were rejected before
        pa.field("photo_id", pa.string()),  # several joined by commas: the background first, then pictures in the page
        pa.field("origin", pa.string()),  # real pictures: file, or file and page
        pa.field("licence", pa.string()),
        pa.field("pixels_xxh3", pa.string()),  # of the decoded H x W x 3 bytes: independent of the codec
        # scores
        pa.field("characters", pa.int32()),  # without blanks; drawn, or read by OCR in real pictures
        pa.field("characters_per_mp", pa.float32()),  # characters over megapixels
        pa.field("text_area", pa.float32()),  # share of the picture covered by line quads, 0 to 1
        pa.field("ned", pa.float32()),  # mean read_ned / clean_ned over the lines, weighted by characters; read in full
        pa.field("sharpness", pa.float32()),  # log ratio of high to middle spectral power (real pictures)
        pa.field("density_class", pa.string()),  # none, sparse, medium or dense: by characters_per_mp, see density.py
        # scores of real pictures; those that no rule had to ask for are null, see scores.py
        pa.field("format", pa.string()),  # png, jpeg, ..., pdf
        pa.field("jpeg_quality", pa.float32()),  # 1 to 100, from the file's tables; null for other formats
        pa.field("jpeg_history", pa.float32()),  # the same from the pixels; null when they show none
        pa.field("luma_mean", pa.float32()),  # 0 to 255
        pa.field("luma_range", pa.float32()),  # 1st to 99th percentile, 0 to 255
        pa.field("clipped_dark", pa.float32()),  # share of pixels, 0 to 1
        pa.field("clipped_bright", pa.float32()),
        pa.field("saturation", pa.float32()),  # mean, 0 to 1
        pa.field("entropy", pa.float32()),  # of luma, bits
        pa.field("blank_share", pa.float32()),  # of tiles of one colour, 0 to 1
        pa.field("noise", pa.float32()),  # visible grain, luma levels
        pa.field("upscale", pa.float32()),  # how many times larger than its detail, 1 and up
        pa.field("repeated_marks", pa.float32()),  # strength of a pattern that repeats all over, 0 to 1
        pa.field("glyph_height_px", pa.float32()),  # median height of the lines' quads over the characters
        pa.field("han_share", pa.float32()),  # Han characters among all, 0 to 1
        pa.field("read_score", pa.float32()),  # the reader's own mean confidence, 0 to 1
        pa.field("repeated_text", pa.float32()),  # share of characters in lines that stand there three times and more
        pa.field("phash", pa.string()),  # perceptual hash, 16 hex digits
        pa.field("duplicate_of", pa.string()),  # row_id, or the benchmark's file, of which this picture is a copy
        # verdict
        pa.field("keep", pa.bool_()),
        pa.field("reason", pa.string()),  # why it was rejected; "" when kept
        pa.field("detail", pa.string()),  # what exactly was wrong with a file, or the rule that failed and its scores
        pa.field("judged_by", pa.string()),  # "ocr", "cascade", "rules" or "none"
        pa.field(  # what the cascade said of a page that was read in full to audit it; null for all others
            "audit",
            pa.struct(
                [
                    pa.field("keep", pa.bool_()),
                    pa.field("false_keep", pa.int32()),  # lines it calls legible and OCR does not
                    pa.field("false_drop", pa.int32()),
                ]
            ),
        ),
    ]
)


def with_metadata(schema: pa.Schema, metadata: dict[str, str]) -> pa.Schema:
    """`schema` with the run's own metadata and the `huggingface` key that makes `datasets` decode `image`."""
    import datasets

    features = datasets.Features.from_arrow_schema(schema)
    features["image"] = datasets.Image()
    huggingface = json.dumps({"info": {"features": features.to_dict()}})
    return schema.with_metadata({"huggingface": huggingface, **metadata})
