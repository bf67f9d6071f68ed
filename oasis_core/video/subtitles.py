"""Text subtitles for MP4 and MOV, which hold only their own kind: FFmpeg's decoder and encoder."""

from __future__ import annotations

import logging
from fractions import Fraction

import av

from .errors import AV_ERRORS

log = logging.getLogger(__name__)

TEXT_CODECS = ("subrip", "srt", "ass", "ssa", "webvtt", "text")
_TICK = Fraction(1, 1000)


class MovText:
    """Turns one text subtitle stream into mov_text; bold, italic and colours stay.

    Args:
        stream: of the source.
        output: opened for writing, its header not out yet.

    Raises:
        NotImplementedError: this PyAV cannot convert it; the output is untouched.
    """

    def __init__(self, stream: av.stream.Stream, output: av.container.OutputContainer) -> None:
        context = stream.codec_context
        if not hasattr(context, "subtitle_header"):  # PyAV before 17
            raise NotImplementedError(f"PyAV {av.__version__} cannot encode subtitles")
        context.open(strict=False)
        # An encoder that fails after the stream is added would take the whole file with it.
        trial = av.CodecContext.create("mov_text", "w")
        trial.subtitle_header, trial.time_base = context.subtitle_header, _TICK
        try:
            trial.open()
        except AV_ERRORS as error:
            raise NotImplementedError("this FFmpeg build has no mov_text encoder") from error
        self._decoder = context
        self.stream = output.add_stream("mov_text")
        self.stream.time_base = _TICK
        self._encoder = self.stream.codec_context
        self._encoder.subtitle_header = context.subtitle_header
        self._encoder.time_base = _TICK

    def convert(self, packet: av.packet.Packet) -> av.packet.Packet | None:
        """Return a packet for the output at the time of the given one; None if it is empty."""
        try:
            lines = self._decoder.decode2(packet)
            if lines is None:
                return None
            converted = self._encoder.encode_subtitle(lines)
        except AV_ERRORS as error:
            log.warning("a subtitle line cannot be converted and is left out: %s", error)
            return None
        converted.pts = converted.dts = packet.pts
        converted.duration = packet.duration
        converted.time_base = packet.time_base
        converted.stream = self.stream
        return converted
