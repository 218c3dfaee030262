"""What to extract from: samples as a table, and one sample as pixels; nothing here knows an extractor."""

from featx.samples.decode import (
    ALPHA_COLOUR,
    DECODE_POLICY,
    PIXEL_LIMIT,
    Pixels,
    decode,
    decode_fast,
    decoder_versions,
    pillow_warnings_ignored,
)
from featx.samples.nvjpeg import check_nvjpeg, decode_nvjpeg
from featx.samples.read import read_labelled, read_samples
from featx.samples.table import RawSample, SampleTable, key_of

__all__ = [
    "ALPHA_COLOUR",
    "DECODE_POLICY",
    "PIXEL_LIMIT",
    "Pixels",
    "RawSample",
    "SampleTable",
    "check_nvjpeg",
    "decode",
    "decode_fast",
    "decode_nvjpeg",
    "decoder_versions",
    "key_of",
    "pillow_warnings_ignored",
    "read_labelled",
    "read_samples",
]
