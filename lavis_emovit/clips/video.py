"""Frames of a video file at given times. Seeks, decodes only around what is needed, and keeps one frame at a time.

A time is a presentation time in seconds from the beginning of the file, so the rate of the frames may vary. The frame
at a time is the one that a player shows then: the last one that is not later.
"""

from __future__ import annotations

import io
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from lavis_emovit.errors import DataError, UserError
from lavis_emovit.files import regular_file
from lavis_emovit.images import MAX_PIXELS

# FFmpeg's names of the containers that are read -> suffix of such a file in shards. Others, such as playlists, may
# make FFmpeg open further files.
SUFFIXES_OF_CONTAINER = {
    "mov,mp4,m4a,3gp,3g2,mj2": "mp4",
    "matroska,webm": "mkv",
    "avi": "avi",
    "mpegts": "ts",
    "mpeg": "mpg",
    "flv": "flv",
    "asf": "wmv",
    "ogg": "ogv",
}
VIDEO_SUFFIXES = frozenset({"mp4", "m4v", "mov", "3gp", "mkv", "webm", "avi", "ts", "mpg", "mpeg", "flv", "wmv", "ogv"})
VIDEO_FILE_SUFFIXES = frozenset(f".{suffix}" for suffix in VIDEO_SUFFIXES)
"""As `Path.suffix` has them, in lower case."""

# Later than a frame by less than this is at the frame; containers round times to milliseconds or microseconds.
_ROUNDING_S = 0.0005
# More than any codec delays a frame.
_LOOK_AHEAD_PACKETS = 32
_REORDER_S = 0.5
# Without an index of key frames, larger gaps are jumped over.
_BLIND_SEEK_S = 20.0
# Streams may end so much earlier than the file states.
_END_TOLERANCE_S = 1.0


class Video(AbstractContextManager["Video"]):
    """A video file, or its bytes, that is open.

    Attributes:
        suffix: of a file in this container.
        end_s: end of the video stream.

    Raises:
        DataError: not a video file, without a video stream, or damaged; the text does not name the file.
        OSError: the file cannot be opened.
        UserError: PyAV is not installed.
    """

    def __init__(self, source: bytes | Path):
        self._av = _import_av()
        if isinstance(source, bytes) and not source:
            raise DataError("the file is empty")
        self._file = io.BytesIO(source) if isinstance(source, bytes) else regular_file(source).open("rb")
        try:
            with self._named_errors("not a video file of a known format, or its beginning or end is missing"):
                self._container = self._open()
            self.suffix = SUFFIXES_OF_CONTAINER[self._container.format.name]
            self._stream = self._video_stream()
            self._reformatter = self._av.video.reformatter.VideoReformatter()
            self._start_s = (self._container.start_time or 0) / self._av.time_base
            self._tick_s = self._stream.time_base.as_integer_ratio()
            self._stated_end_s = self._read_stated_end()
            self.end_s = self._stated_end_s or self._found_end()
        except BaseException:
            self._file.close()
            raise

    def __exit__(self, *exception: object) -> None:
        self._container.close()
        self._file.close()

    def frames_at(self, times_s: Sequence[float]) -> Iterator[tuple[float, Image.Image]]:
        """The frames at some times, ascending: the presentation time of each, and its upright RGB pixels.

        DataError if the file is damaged where one of them is, or truncated before it.
        """
        shown: Any = None  # the newest frame that is not later than the time
        ahead: Any = None
        decoder: Iterator[Any] | None = None
        image: tuple[Any, float, Image.Image] | None = None
        for target_s in times_s:
            if decoder is None or self._is_worth_a_seek(self._time_s(ahead or shown), target_s):
                decoder, shown, ahead = self._decoded_from(target_s, times_s), None, None
            while True:
                ahead = ahead if ahead is not None else next(decoder, None)
                is_later = ahead is not None and self._time_s(ahead) > target_s + _ROUNDING_S
                if ahead is None or (is_later and shown is not None):
                    break
                shown, ahead = ahead, None
                if is_later:
                    break  # the stream begins after this time
            if shown is None:
                raise DataError("the video stream has no frame that can be decoded")
            if ahead is None:
                self._refuse_early_end(self._time_s(shown), target_s)
            if image is None or image[0] is not shown:
                image = shown, self._time_s(shown), self._pixels(shown)
            yield image[1], image[2]

    def check(self) -> None:
        """Decode the whole video once; DataError if it is damaged or truncated."""
        last_s = None
        for frame in self._decoded_from(0.0, None):
            self._refuse_damage(frame)
            last_s = self._time_s(frame)
        if last_s is None:
            raise DataError("the video stream has no frame that can be decoded")
        self._refuse_early_end(last_s, self.end_s)

    def _open(self) -> Any:
        allowed = ",".join(SUFFIXES_OF_CONTAINER)
        return self._av.open(self._file, options={"format_whitelist": allowed, "protocol_whitelist": ""})

    def _video_stream(self) -> Any:
        covers = self._av.stream.Disposition.attached_pic
        streams = [stream for stream in self._container.streams.video if not stream.disposition & covers]
        if not streams:
            kinds = sorted({stream.type for stream in self._container.streams}) or ["nothing"]
            raise DataError(f"the file has no video stream, only {', '.join(kinds)}")
        stream = streams[0]
        if stream.codec_context is None:
            raise DataError("the codec of the video stream is unknown to FFmpeg")
        if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
            raise DataError(f"frames of more than {MAX_PIXELS} pixels")
        # One thread, so that skipping acts on the packet that it was decided for; loaders have a process each.
        stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
        stream.codec_context.thread_type, stream.codec_context.thread_count = "SLICE", 1
        return stream

    def _read_stated_end(self) -> float | None:
        """Where the file says that the video stream ends; None if it does not."""
        stream = self._stream
        if stream.duration is not None and stream.time_base is not None:
            return float((stream.duration + (stream.start_time or 0)) * stream.time_base) - self._start_s
        hours, _, rest = stream.metadata.get("DURATION", "").partition(":")  # Matroska, "00:00:10.000000000"
        minutes, _, seconds = rest.partition(":")
        try:
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - self._start_s
        except ValueError:
            is_alone = len(self._container.streams) == 1
            return self._container.duration / self._av.time_base if is_alone and self._container.duration else None

    def _found_end(self) -> float:
        """End of the last packet of the stream, without decoding."""
        end_s = 0.0
        with self._named_errors("the video is damaged"):
            for packet in self._container.demux(self._stream):
                stamp = packet.pts if packet.pts is not None else packet.dts
                if stamp is not None:
                    end_s = max(end_s, float((stamp + (packet.duration or 0)) * packet.time_base) - self._start_s)
        return end_s

    def _is_worth_a_seek(self, now_s: float, target_s: float) -> bool:
        """Whether a key frame lies between the decoded frames and a time."""
        entries, stream = self._stream.index_entries, self._stream
        if not len(entries):
            return target_s - now_s > _BLIND_SEEK_S
        number = entries.search_timestamp(self._stamp(target_s), backward=True)
        return number >= 0 and float(entries[number].timestamp * stream.time_base) - self._start_s > now_s

    def _stamp(self, time_s: float) -> int:
        return int((time_s + self._start_s) / self._stream.time_base)

    def _decoded_from(self, time_s: float, wanted_s: Sequence[float] | None) -> Iterator[Any]:
        """Decoded frames in the order of presentation; the first is not later than the time, if the stream allows it.

        Frames that are neither shown at a wanted time nor needed to decode others are left out (None: no frame is).
        """
        # An index leads to the last key frame before a time, mostly.
        before_s = 0.0 if len(self._stream.index_entries) else _REORDER_S
        while True:
            start_s = time_s - before_s
            with self._named_errors("the video is damaged"):
                # A stream's first packet is decoded before it is shown, so its beginning is at no positive time.
                stamp = self._stamp(start_s) if start_s > 0 else 0
                self._container.seek(stamp, stream=self._stream, backward=True)
            self._stream.codec_context.flush_buffers()
            frames = self._decode(wanted_s)
            try:
                first = next(frames, None)
            except DataError:
                # Of an open group of pictures, which refers to the group before it; a damaged one fails again.
                if start_s <= 0:
                    raise
                first = None
            if start_s <= 0 or (first is not None and self._time_s(first) <= time_s + _ROUNDING_S):
                break
            # Or an index has the times of decoding, which are earlier: this key frame is shown too late.
            before_s = max(_REORDER_S, 8 * before_s)
        if first is not None:
            yield first
            yield from frames

    def _decode(self, wanted_s: Sequence[float] | None) -> Iterator[Any]:
        context = self._stream.codec_context
        with self._named_errors("the video is damaged"):
            for packet, is_needed in self._packets(wanted_s):
                if packet.is_corrupt:
                    raise DataError("the video is damaged (its container marks a packet as corrupt)")
                context.skip_frame = "DEFAULT" if is_needed else "NONREF"
                yield from context.decode(packet)

    def _packets(self, wanted_s: Sequence[float] | None) -> Iterator[tuple[Any, bool]]:
        """Packets in the order of decoding, and whether each has a frame that is shown at a wanted time."""
        window: deque[Any] = deque()
        stamps: deque[int] = deque(maxlen=2 * _LOOK_AHEAD_PACKETS + 1)
        wanted = None if wanted_s is None else [self._stamp(time_s) for time_s in wanted_s]

        def is_needed(packet: Any) -> bool:
            if wanted is None or packet.pts is None:
                return True
            following = min((stamp for stamp in stamps if stamp > packet.pts), default=None)
            place = bisect_left(wanted, packet.pts)
            # A time is rounded down to the clock of the stream, by which it may be one tick before its frame.
            near = place > 0 and wanted[place - 1] >= packet.pts - 1
            return near or following is None or (place < len(wanted) and wanted[place] < following)

        for packet in self._container.demux(self._stream):
            window.append(packet)
            if packet.pts is not None:
                stamps.append(packet.pts)
            if len(window) > _LOOK_AHEAD_PACKETS:
                yield window[0], is_needed(window[0])
                window.popleft()
        for packet in window:
            yield packet, is_needed(packet)

    def _time_s(self, frame: Any) -> float:
        if frame.pts is None:
            raise DataError("its frames have no times; convert the file with `ffmpeg -i FILE -c:v libx264 FILE.mp4`")
        # As the float of a product with the fraction, which is slow to make for every frame.
        return frame.pts * self._tick_s[0] / self._tick_s[1] - self._start_s

    def _pixels(self, frame: Any) -> Image.Image:
        self._refuse_damage(frame)
        # The pixels of `frame.to_image()`, which copies them twice more. The image is first, because memory between two
        # images would not be used again. Not through "rgb0":
        # findings/pyav_four_byte_pixels_are_wrong_at_the_right_edge.sh
        image = Image.new("RGB", (frame.width, frame.height))
        with self._named_errors("the video is damaged"):
            plane = self._reformatter.reformat(frame, format="rgb24", threads=1).planes[0]
        image.frombytes(plane, "raw", "RGB", plane.line_size, 1)
        # The display matrix rotates counter-clockwise.
        turned = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
        turn = turned.get(frame.rotation % 360)
        return image if turn is None else image.transpose(turn)

    def _refuse_damage(self, frame: Any) -> None:
        if frame.is_corrupt:
            raise DataError(f"the video is damaged at {self._time_s(frame):.2f} s")

    def _refuse_early_end(self, last_s: float, target_s: float) -> None:
        """A time behind the last frame is fine, unless the file states that the stream is longer."""
        rate = self._stream.average_rate or self._stream.guessed_rate
        end_s = last_s + (1 / float(rate) if rate else 0.0)
        stated_s = self._stated_end_s
        if stated_s is not None and min(target_s, stated_s) > end_s + _END_TOLERANCE_S:
            raise DataError(f"the video is truncated: its frames end at {end_s:.2f} s of {stated_s:.2f} s")

    @contextmanager
    def _named_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._av.error.FFmpegError as error:
            raise DataError(f"{what} ({error.strerror})") from None


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        raise UserError("clips need PyAV; install it with `pip install 'lavis-emovit[clips]'`") from None
    # FFmpeg would write its own lines about damage to stderr; here they are errors.
    av.logging.set_level(None)
    return av
