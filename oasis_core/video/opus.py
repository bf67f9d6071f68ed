"""Sound as Opus, for containers that hold hardly anything else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction

import av
import av.filter

from .errors import AV_ERRORS, reason

log = logging.getLogger(__name__)

OPUS_CODECS = ("opus", "vorbis", "libopus", "libvorbis")
"""Sound that WebM holds as it is."""
_RATE = 48_000
_FRAME_SAMPLES = 960
_BITS_PER_CHANNEL = 80_000
"""A little above what listeners tell from the original in stereo."""
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_MOST_CHANNELS = 8


class OpusSound:
    """Turns one stream of sound into Opus; a gap in it becomes silence, so that it stays in time.

    Args:
        stream: of the source.
        output: opened for writing, its header not out yet.

    Raises:
        NotImplementedError: it cannot be turned; the output is untouched.
    """

    def __init__(self, stream: av.stream.Stream, output: av.container.OutputContainer) -> None:
        context = stream.codec_context
        channels = context.layout.nb_channels
        if not 1 <= channels <= _MOST_CHANNELS:
            raise NotImplementedError(f"Opus has 1 to {_MOST_CHANNELS} channels, not {channels}")
        if "libopus" not in av.codecs_available:
            raise NotImplementedError("this FFmpeg build has no Opus encoder")
        self._layout = _LAYOUTS[channels]
        self._decoder = context
        self._graph: av.filter.Graph | None = None
        self.stream = output.add_stream("libopus", rate=_RATE)
        self._encoder = self.stream.codec_context
        self._encoder.layout, self._encoder.format = self._layout, "flt"
        self._encoder.time_base = self.stream.time_base = Fraction(1, _RATE)
        self._encoder.bit_rate = channels * _BITS_PER_CHANNEL
        self._encoder.thread_count = 1
        self._source = stream
        self._first: Fraction | None = None
        self._num_samples = 0

    def convert(self, packet: av.packet.Packet) -> Iterator[av.packet.Packet]:
        """Yield packets for the output that a packet of the source completes."""
        try:
            frames = self._decoder.decode(packet)
        except AV_ERRORS as error:
            log.warning("damaged sound is left out: %s", reason(error))
            return
        for frame in frames:
            yield from self._put(frame)

    def rest(self) -> Iterator[av.packet.Packet]:
        """Yield what is left after the last packet."""
        try:
            frames = self._decoder.decode(None)
        except AV_ERRORS:
            frames = []
        for frame in frames:
            yield from self._put(frame)
        if self._graph is not None:
            self._graph.push(None)
            yield from self._pulled()
            yield from self._bound(self._encoder.encode(None))

    def _put(self, frame: av.AudioFrame) -> Iterator[av.packet.Packet]:
        if self._graph is None:
            self._graph = self._new_graph(frame)
            self._first = Fraction(0)
            if frame.pts is not None:
                self._first = frame.pts * frame.time_base
        self._graph.push(frame)
        yield from self._pulled()

    def _new_graph(self, frame: av.AudioFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        nodes = (
            graph.add_abuffer(
                sample_rate=frame.sample_rate,
                format=frame.format,
                layout=frame.layout,
                time_base=frame.time_base or Fraction(1, frame.sample_rate),
            ),
            graph.add("aresample", f"{_RATE}:async=1"),
            graph.add("aformat", f"sample_fmts=flt:channel_layouts={self._layout}"),
            graph.add("asetnsamples", f"n={_FRAME_SAMPLES}:p=0"),
            graph.add("abuffersink"),
        )
        graph.link_nodes(*nodes).configure()
        return graph

    def _pulled(self) -> Iterator[av.packet.Packet]:
        while True:
            try:
                frame = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            # Counted, not read: each piece follows the one before.
            frame.pts = round(self._first * _RATE) + self._num_samples
            frame.time_base = Fraction(1, _RATE)
            self._num_samples += frame.samples
            yield from self._bound(self._encoder.encode(frame))

    def _bound(self, packets: list[av.packet.Packet]) -> Iterator[av.packet.Packet]:
        for packet in packets:
            packet.stream = self.stream
            yield packet
