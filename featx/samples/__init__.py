"""What to extract from: samples as a table, and one sample as pixels; nothing here knows an extractor."""

from featx.samples.decode import (
    ALPHA_COLOUR,
    DECODE_POLICY,
    PIXEL_LIMIT,
    Pixels,
    decode,
    decode_fast,
    decoder_versions,
)
from featx.samples.read import read_samples
from featx.samples.table import RawSample, SampleTable, key_of

__all__ = [
    "ALPHA_COLOUR",
    "DECODE_POLICY",
    "PIXEL_LIMIT",
    "Pixels",
    "RawSample",
    "SampleTable",
    "decode",
    "decode_fast",
    "decoder_versions",
    "key_of",
    "read_samples",
]
