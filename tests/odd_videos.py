"""Small video files of every kind that people have, a table, and how ffmpeg makes each.

    python -m tests.odd_videos FOLDER [WORD ...]    # write the files whose names have all WORDs; say how
"""

import functools
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.filmed import FFMPEG, draw
from tests.reliability import numbers

X264, X265 = "-c:v libx264 -preset veryfast -crf 14", "-c:v libx265 -preset ultrafast -crf 14"
QUIET = "log-level=none:pools=none"   # x265 prints on its own, and starts threads
MPEG2, MPEG4 = "-c:v mpeg2video -q:v 2", "-c:v mpeg4 -q:v 2"
VP8 = "-c:v libvpx -b:v 2M -deadline realtime"
VP9 = "-c:v libvpx-vp9 -b:v 2M -deadline realtime -cpu-used 8"
PALETTE = '-vf "split[a][b];[a]palettegen[p];[b][p]paletteuse"'
TURNS = {90: "transpose=1", 180: "hflip,vflip", 270: "transpose=2"}
MATRICES = {"bt601": "smpte170m", "bt709": "bt709", "bt2020": "bt2020nc"}

# codec: its containers, options of all its files, options of one file each
CODECS = {
    "h264": ("mp4 mov mkv avi ts flv m4v", f"{X264} -pix_fmt yuv420p",
             ["-g 1", "-bf 0 -g 12", "-bf 2 -g 300", "-bf 3 -g 24 -x264-params open-gop=1",
              "-x264-params intra-refresh=1:keyint=20",
              "-bf 8 -refs 6 -x264-params b-pyramid=normal:b-adapt=0:keyint=40"]),
    "hevc": ("mp4 mov mkv ts", f"{X265} -pix_fmt yuv420p -tag:v hvc1",
             [f"-x265-params {QUIET}", f"-x265-params {QUIET}:keyint=1",
              f"-x265-params {QUIET}:keyint=24:bframes=0",
              f"-x265-params {QUIET}:keyint=12:min-keyint=12:open-gop=1:bframes=4:b-adapt=0"]),
    "mpeg4": ("avi mp4 mov mkv ts", MPEG4, ["-g 1", "-bf 2", "-bf 3 -g 300", "-bf 0 -g 12"]),
    "xvid": ("avi mkv", "-c:v libxvid -q:v 2", ["-bf 2", "-bf 0 -g 300"]),
    "mpeg2": ("ts mpg mkv mov avi mxf", MPEG2,
              ["-g 1", "-bf 2 -g 12", "-bf 2 -g 12 -flags +cgop -sc_threshold 1000000000"]),
    "mpeg1": ("mpg", "-c:v mpeg1video -q:v 2", ["-g 12 -bf 2", "-g 1"]),
    "vp8": ("webm mkv", VP8, ["-g 300 -auto-alt-ref 1 -lag-in-frames 16", "-g 12"]),
    "vp9": ("webm mkv mp4", VP9,
            ["-g 300 -auto-alt-ref 1 -lag-in-frames 16 -deadline good", "-g 12", "-g 1"]),
    "av1": ("mp4 mkv webm", "-c:v libsvtav1 -preset 12 -crf 20", ["-g 300", "-g 12"]),
    "aom": ("mp4 mkv", "-c:v libaom-av1 -cpu-used 8 -crf 20", ["-g 24"]),
    "mjpeg": ("avi mov mkv mp4", "-c:v mjpeg -q:v 2", ["", "-pix_fmt yuvj444p"]),
    "prores": ("mov mkv", "-c:v prores_ks", ["-profile:v 2", "-profile:v 4 -pix_fmt yuv444p10le"]),
    "ffv1": ("mkv avi mov", "-c:v ffv1", ["-pix_fmt yuv420p", "-g 1 -pix_fmt bgr0"]),
    "theora": ("ogv", "-c:v libtheora -q:v 9", ["-g 12"]),
    "wmv2": ("wmv", "-c:v wmv2 -q:v 2", ["-g 12"]),
    "msmpeg4": ("avi", "-c:v msmpeg4 -q:v 5", ["-g 12"]),
    "flv1": ("flv", "-c:v flv -q:v 2", ["-g 12"]),
    "h263": ("3gp", "-c:v h263 -q:v 2 -s 128x96", ["-g 12"]),
    "lossless": ("avi mov mkv", "",
                 ["-c:v huffyuv", "-c:v utvideo", "-c:v png", "-c:v ffvhuff -pix_fmt yuv420p"]),
    "raw": ("avi mov", "-c:v rawvideo", ["-pix_fmt uyvy422"]),
    "qtrle": ("mov", "-c:v qtrle", [""]),
    "gif": ("gif", PALETTE, ["", "-gifflags -transdiff-offsetting"]),
    "webp": ("webp", "-c:v libwebp_anim -loop 0", ["-lossless 1", "-q:v 90"]),
    "apng": ("apng", "-f apng -plays 0", ["", "-pred mixed"]),
}
# one file each: codecs of old archives, screen recorders and editing programs
RARE_CODECS = {
    "cinepak.avi": "-c:v cinepak", "msrle.avi": "-c:v msrle", "msvideo1.avi": "-c:v msvideo1",
    "zmbv.avi": "-c:v zmbv -g 12", "magicyuv.avi": "-c:v magicyuv", "snow.avi": "-c:v snow -q:v 2 -strict -2",
    "ljpeg.avi": "-c:v ljpeg -strict -1", "svq1.mov": "-c:v svq1 -q:v 2 -g 12", "rpza.mov": "-c:v rpza",
    "jpeg2000.mov": "-c:v jpeg2000 -q:v 3", "hap.mov": "-c:v hap", "cineform.mov": "-c:v cfhd -s 160x120",
    "dnxhr.mov": "-c:v dnxhd -profile:v dnxhr_hq -pix_fmt yuv422p -s 256x192",
    "flash_screen.flv": "-c:v flashsv", "flash_screen_2.flv": "-c:v flashsv2", "rv20.rm": "-c:v rv20 -q:v 2",
    "wmv1.wmv": "-c:v wmv1 -q:v 2",
}
# name: how a file is encoded that is then put into another container without encoding
REMUXED = {
    "ts_to.mp4": f"{X264} -bf 2 -g 20 -pix_fmt yuv420p -f mpegts",
    "flv_to.mp4": f"{X264} -bf 2 -pix_fmt yuv420p -f flv",
    "mp4_to.avi": f"{X264} -bf 2 -pix_fmt yuv420p -f mp4",
    "avi_to.mp4": f"{MPEG4} -bf 2 -f avi",
    "webm_to.mp4": f"{VP9} -g 30 -f webm",
    "mkv_to.ts": f"{X265} -x265-params {QUIET} -f matroska",
}
# what the files of the other themes are encoded with
COMMON = {
    "mp4": f"{X264} -bf 2 -pix_fmt yuv420p",
    "mov": f"{X264} -g 12 -pix_fmt yuv420p",
    "mkv": f"{X265} -x265-params {QUIET}",
    "avi": f"{MPEG4} -bf 2",
    "webm": f"{VP9} -g 30",
    "ts": f"{X264} -bf 2 -g 20 -pix_fmt yuv420p",
    "mpg": f"{MPEG2} -bf 2",
}
# codecs that are cut and slowed down in other ways
OTHERS = {
    "hevc.mp4": f"{X265} -x265-params {QUIET}:keyint=24:open-gop=1 -tag:v hvc1",
    "hevc.ts": f"{X265} -x265-params {QUIET}:keyint=30",
    "mpeg4.mp4": f"{MPEG4} -bf 2 -g 24",
    "av1.mp4": "-c:v libsvtav1 -preset 12 -crf 20 -g 24",
    "vp8.webm": f"{VP8} -g 30",
    "mpeg2.ts": f"{MPEG2} -bf 2 -g 12",
    "prores.mov": "-c:v prores_ks",
    "open.mp4": f"{X264} -bf 3 -g 20 -x264-params open-gop=1 -pix_fmt yuv420p",
    "h264.flv": f"{X264} -bf 2 -g 30 -pix_fmt yuv420p",
    "wmv2.wmv": "-c:v wmv2 -q:v 2 -g 12",
}
CUTS = [(1.5, 1), (0.3, 2), (2.02, 0.7), (0, 1.1)]   # start and length in seconds
SOUND = {"webm": "-c:a libopus", "avi": "-c:a libmp3lame", "mpg": "-c:a mp2"}
# when frame N is shown, in milliseconds
TIMES = {
    "62.5 frames a second, then 15": "if(lt(N,24),16*N,384+66*(N-24))",
    "slower and slower": "10*N+N*N",
    "every third frame left out": "40*(N+floor(N/2))",
    "uneven": "33*N+floor(15*sin(N*5))",
    "a stop of 1.5 s": "40*N+if(gt(N,20),1500,0)",
    "the first frame held": "if(N,1000+30*N,0)",
    "24 frames a second, then 125": "if(lt(N,24),42*N,1008+8*(N-24))",
    "the last frame held": "70*N+if(gt(N,46),3000,0)",
    "a stop of 9 s": "40*N+if(gt(N,30),9000,0)",
}


@dataclass(frozen=True)
class Kind:
    """One file: what is odd about it, its name, and how ffmpeg makes it from filmed frames."""

    theme: str
    name: str
    # arguments of ffmpeg, a string per command; {source}: the filmed frames, {0}, {1}: the files that the
    # commands before wrote, {list}: both of them in a list for -f concat
    steps: tuple[str, ...]
    size: tuple[int, int] = (96, 72)
    num_frames: int = 48
    rate: str = "24"
    alpha: bool = False

    def commands(self, folder: Path) -> list[list[str]]:
        """Return the commands that write folder/name."""
        path, source = folder / self.name, film(folder, self.num_frames, *self.size, self.alpha)
        outs = [folder / f"_{index}{path.suffix}" for index in range(len(self.steps) - 1)] + [path]
        pixels = (f"-f rawvideo -pix_fmt {'rgba' if self.alpha else 'rgb24'} "
                  f"-s {self.size[0]}x{self.size[1]} -r {self.rate} -i {shlex.quote(str(source))}")
        (folder / "_list.txt").write_text(f"file _0{path.suffix}\nfile _1{path.suffix}\n")
        places = [shlex.quote(str(out)) for out in outs]
        names = {"source": pixels, "list": shlex.quote(str(folder / "_list.txt"))}
        return [[FFMPEG, "-v", "error", "-nostdin", "-y",
                 *shlex.split(f"{step.format(*places, **names)} {place}")]
                for step, place in zip(self.steps, places)]

    def write(self, folder: Path) -> str:
        """Write folder/name; return what ffmpeg says against it, nothing if it is written."""
        for command in self.commands(folder):
            process = subprocess.run(command, capture_output=True)
            if process.returncode:
                return process.stderr.decode(errors="replace").strip().splitlines()[0]
        return ""


@functools.cache
def film(folder: Path, num_frames: int, width: int, height: int, alpha: bool) -> Path:
    """Return a file of raw frames."""
    path = folder / f"_{num_frames}_{width}x{height}{'_alpha' * alpha}.raw"
    path.write_bytes(draw(num_frames, width, height, alpha).tobytes())
    return path


def kinds() -> list[Kind]:
    """Return all files, by theme."""
    return [*by_codec(), *by_time(), *by_shape(), *by_colour(), *by_container()]


def by_codec() -> Iterator[Kind]:
    sizes = [(96, 72), (160, 90), (72, 128), (66, 50)]
    rates = ["24", "25", "30000/1001", "60", "50", "24000/1001"]
    for codec, (suffixes, common, variants) in CODECS.items():
        for suffix in suffixes.split():
            for index, options in enumerate(variants):
                rng = numbers("codec", codec, suffix, index)
                yield Kind(
                    codec, f"{codec}_{index}.{suffix}", (f"{{source}} {common} {options}",),
                    sizes[0] if codec in ("av1", "h263") else rng.choice(sizes), rng.choice((30, 48, 75)),
                    # pictures: ffmpeg rounds their delays, which adds up to more than a moment allows for
                    "24" if codec in ("gif", "webp", "apng", "h263") else
                    "25" if suffix == "mxf" else rng.choice(rates))
    for name, options in RARE_CODECS.items():
        yield Kind("rare codecs", f"rare_{name}", (f"{{source}} {options}",))
    for name, options in REMUXED.items():
        yield Kind("put into another container", name, (f"{{source}} {options}", "-i {0} -c copy"))


def by_time() -> Iterator[Kind]:
    for suffix, options in COMMON.items():
        encode = f"{{source}} {options}"
        with_sound = f"{{source}} -f lavfi -i sine=r=48000 -shortest {options} {SOUND.get(suffix, '')}"
        if suffix not in ("avi", "mpg"):
            yield from at_variable_rate(suffix, options)
        for index, (start, length) in enumerate(CUTS):
            cut = f"-ss {start} -i {{0}} -t {length} -c copy"
            yield Kind("cut without encoding", f"cut_{index}.{suffix}", (encode, cut), num_frames=96)
            yield Kind("cut without encoding", f"cut_sound_{index}.{suffix}", (with_sound, cut),
                       num_frames=96)
        for length in (1, 2, 3, 5):
            yield Kind("very short", f"short_{length}.{suffix}", (encode,), num_frames=length)
        yield Kind("long", f"long.{suffix}", (encode,), num_frames=600, rate="60")
        yield Kind("start not at zero", f"late.{suffix}", (f"{encode} -output_ts_offset 3.7",))
        yield Kind("start not at zero", f"early.{suffix}", (
            encode, "-itsoffset -0.3 -i {0} -c copy -avoid_negative_ts disabled"))
        for rate in ("1", "7.5", "10", "12", "15", "120", "240") if suffix != "mpg" else ():
            yield Kind("other rates", f"rate_{rate}.{suffix}", (encode,), rate=rate, num_frames=40)
        yield Kind("slowed without encoding", f"slower.{suffix}", (
            encode, "-itsscale 2.5 -i {0} -c copy"))
    for name, options in OTHERS.items():
        yield from at_variable_rate(name, options) if name[:3] not in ("mpe", "pro") else ()
        for index, (start, length) in enumerate(CUTS):
            yield Kind("cut without encoding", f"cut_{index}_{name}", (
                f"{{source}} {options}", f"-ss {start} -i {{0}} -t {length} -c copy"), num_frames=96)
    for suffix in ("mp4", "mov", "mkv"):   # as programs do that cut and join without encoding
        yield Kind("cut without encoding", f"cut_and_joined.{suffix}", (
            f"{{source}} {COMMON[suffix]} -g 24", f"{{source}} -ss 1 {COMMON[suffix]} -g 24",
            "-f concat -safe 0 -i {list} -c copy", "-ss 1.3 -i {2} -t 4 -c copy"), num_frames=72)
    yield Kind("start not at zero", "wrapping.ts", (f"{{source}} {COMMON['ts']} -output_ts_offset 95442",))
    yield Kind("variable rate", "dropped.avi", (
        f"{{source}} -vf \"select='lt(mod(n,5),3)'\" -fps_mode passthrough {MPEG4}",))
    for suffix in ("gif", "webp", "apng"):
        options = "" if suffix == "gif" else CODECS[suffix][1]
        unit = 100 if suffix == "gif" else 1000   # of its clock, a second
        for index, times in enumerate([*TIMES.values(), "10*N" if suffix == "gif" else "20*N"]):
            yield Kind("delays of pictures", f"delays_{index}.{suffix}", (
                f"{{source}} -vf \"settb=1/{unit},setpts='floor(({times})*{unit}/1000)'\" "
                f"-fps_mode passthrough -enc_time_base filter {options}",))
        for length in (1, 2, 3):
            yield Kind("very short", f"short_{length}.{suffix}", (f"{{source}} {options}",),
                       num_frames=length)


def at_variable_rate(name: str, options: str) -> Iterator[Kind]:
    for index, times in enumerate(TIMES.values()):
        yield Kind("variable rate", f"times_{index}{'_' * ('.' in name) or '.'}{name}", (
            f"{{source}} -vf \"settb=1/1000,setpts='{times}'\" -fps_mode passthrough "
            f"-enc_time_base filter {options}",))


def by_shape() -> Iterator[Kind]:
    for degrees, turn in TURNS.items():
        for suffix, flip in (("mp4", ""), ("mov", ""), ("mkv", ""), ("mov", "hflip,")):
            yield Kind("turned", f"turned_{degrees}{flip[:-1]}.{suffix}", (
                f"{{source}} -vf {flip}{turn} {COMMON[suffix]}",
                f"-display_rotation {degrees} {'-display_hflip' * bool(flip)} -i {{0}} -c copy"))
        yield Kind("turned", f"turned_{degrees}_pixels.mp4", (
            f"{{source}} -vf scale=120:120,setsar=4/3,{turn} {COMMON['mp4']}",
            f"-display_rotation {degrees} -i {{0}} -c copy"), (160, 120))
    for suffix, options in COMMON.items():
        for ratio, width in (("4/3", 120), ("8/9", 180), ("64/45", 112), ("12/11", 146), ("2/1", 80),
                             ("1/2", 320)) if suffix != "mpg" else ():
            yield Kind("pixel aspect", f"pixels_{ratio.replace('/', '_')}.{suffix}", (
                f"{{source}} -vf scale={width}:120,setsar={ratio} {options}",), (160, 120))
        for width, height in ((66, 50), (70, 54), (64, 98), (50, 66), (98, 64), (97, 65), (33, 47)):
            if width % 2 and suffix in ("mp4", "mkv"):
                yield Kind("odd sizes", f"size_{width}x{height}.{suffix}", (
                    f"{{source}} {options} -pix_fmt yuv444p",), (width, height))
            elif width % 2 == 0 or suffix in ("webm", "avi"):
                yield Kind("odd sizes", f"size_{width}x{height}.{suffix}", (f"{{source}} {options}",),
                           (width, height))
    yield Kind("pixel aspect", "pixels.mpg", (
        f"{{source}} -vf scale=120:120,setdar=4/3 {COMMON['mpg']}",), (160, 120))
    for suffix in ("mp4", "mov", "mkv"):   # the codec says that pixels are square, the container says no
        yield Kind("pixel aspect", f"aspect_of_container.{suffix}", (
            f"{{source}} -vf scale=120:120,setsar=1 {COMMON[suffix]}",
            "-i {0} -c copy -aspect 4:3"), (160, 120))
    for suffix in ("mp4", "mkv", "webm"):   # more pixels than one thread decodes in good time
        yield Kind("large", f"large.{suffix}", (
            f"{{source}} -vf scale=out_color_matrix=bt709:out_range=tv {COMMON[suffix]}",), (1280, 800), 24)
    yield Kind("pixel aspect", "dv.avi", (
        "{source} -vf scale=720:576,setdar=4/3 -pix_fmt yuv420p -c:v dvvideo",), (160, 120), 12, "25")
    for order in ("tff", "bff"):
        for suffix, codec in (("mp4", f"{X264} -bf 2"), ("mkv", X264), ("ts", f"{MPEG2} -bf 2"),
                              ("mpg", MPEG2), ("avi", MPEG4), ("mov", "-c:v prores_ks")):
            yield Kind("interlaced", f"{order}.{suffix}", (
                f"{{source}} -vf setfield={order} -flags +ilme+ildct -pix_fmt "
                f"{'yuv422p10le' if suffix == 'mov' else 'yuv420p'} {codec}",), rate="25")
    for length in (1, 2, 3):
        yield Kind("interlaced", f"short_{length}_interlaced.ts", (
            f"{{source}} -vf setfield=tff -flags +ilme+ildct {MPEG2}",), num_frames=length, rate="25")


def by_colour() -> Iterator[Kind]:
    for matrix, space in MATRICES.items():
        for value in ("tv", "pc"):
            for pixels in ("yuv420p", "yuv422p10le", "yuv444p"):
                tags = (f"-vf scale=out_color_matrix={matrix}:out_range={value} -pix_fmt {pixels} "
                        f"-colorspace {space} -color_range {value}")
                for suffix, codec in (("mp4", X264), ("mkv", f"{X265} -x265-params {QUIET}"), ("webm", VP9)):
                    yield Kind("colours", f"colour_{matrix}_{value}_{pixels}.{suffix}", (
                        f"{{source}} {tags} {codec}",))
    for pixels, name, codec in (
            ("gray", "grey.mp4", X264), ("gray", "grey.avi", "-c:v mjpeg -q:v 2"),
            ("gbrp", "rgb.mkv", "-c:v libx264rgb -crf 8 -preset veryfast -pix_fmt rgb24"),
            ("yuv444p12le", "12_bits.mkv", f"{X265} -x265-params {QUIET}"),
            ("pal8", "palette.mov", "-c:v png"),
            ("gray16le", "grey_16_bits.mkv", "-c:v ffv1"), ("rgb48le", "rgb_16_bits.mkv", "-c:v ffv1"),
            ("yuv411p", "411.avi", "-c:v ffvhuff"), ("yuv410p", "410.avi", "-c:v ffvhuff")):
        yield Kind("colours", name, (f"{{source}} -pix_fmt {pixels} {codec}",))
    for transfer in ("smpte2084", "arib-std-b67"):
        tags = f"color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc:range=tv"
        for suffix, codec in (("mp4", f"{X265} -x265-params {QUIET} -tag:v hvc1"),
                              ("mkv", f"{X265} -x265-params {QUIET}"), ("webm", VP9)):
            yield Kind("HDR", f"hdr_{transfer}.{suffix}", (
                f"{{source}} -vf scale=out_color_matrix=bt2020:out_range=tv,setparams={tags} "
                f"-pix_fmt yuv420p10le {codec}",))
    for suffix, options in (
            ("webm", f"{VP9} -pix_fmt yuva420p"), ("mkv", f"{VP8} -pix_fmt yuva420p -auto-alt-ref 0"),
            ("mov", "-c:v prores_ks -profile:v 4444 -pix_fmt yuva444p10le"),
            ("avi", "-c:v png -pix_fmt rgba"),
            ("gif", PALETTE.replace("palettegen", "palettegen=reserve_transparent=1")),
            ("webp", "-c:v libwebp_anim -lossless 1 -pix_fmt bgra"), ("apng", "-f apng")):
        yield Kind("alpha", f"alpha.{suffix}", (f"{{source}} {options}",), alpha=True)


def by_container() -> Iterator[Kind]:
    for suffix, options in COMMON.items():
        for index, (offset, length) in enumerate([(0, 5), (-0.5, 2), (0.7, 1), (0.021, 2)]):
            yield Kind("sound of another length", f"sound_{index}.{suffix}", (
                f"{{source}} -itsoffset {offset} -f lavfi -i sine=r=48000:d={length} -map 0 -map 1 {options} "
                f"{SOUND.get(suffix, '-c:a aac')}",))
        if suffix != "mpg":
            yield Kind("several streams", f"streams.{suffix}", (
                '{source} {source} -filter_complex "[1]negate,scale=64:48[b]" -map 0 -map [b] '
                + options,))
    picture = "-f lavfi -i testsrc=s=320x320 -frames:v 1 -c:v mjpeg -f mjpeg"
    for suffix in ("mp4", "mov"):
        for position, order in enumerate(("-map 0 -map 1", "-map 1 -map 0")):
            yield Kind("cover art", f"cover_{position}.{suffix}", (
                f"{{source}} {COMMON[suffix]}", picture,
                f"-i {{0}} -i {{1}} {order} -c copy -disposition:v:{1 - position} attached_pic"))
    yield Kind("cover art", "cover.mkv", (
        picture, f"{{source}} {COMMON['mkv']} -attach {{0}} -metadata:s:t mimetype=image/jpeg"))
    for flags in ("frag_keyframe+empty_moov", "frag_every_frame+empty_moov", "faststart", "dash",
                  "negative_cts_offsets", "empty_moov+default_base_moof+frag_keyframe+delay_moov"):
        for suffix, options in (("mp4", COMMON["mp4"]),
                                ("mov", f"{X265} -x265-params {QUIET} -tag:v hvc1")):
            yield Kind("ways of writing", f"flags_{flags.replace('+', '_')}.{suffix}", (
                f"{{source}} {options} -movflags {flags}",))
    for name, options in (("timecode.mov", f"{COMMON['mov']} -timecode 01:00:00:00"),
                          ("live.mkv", f"{COMMON['mkv']} -live 1"), ("live.webm", f"{VP8} -live 1"),
                          ("clock_600.mp4", f"{COMMON['mp4']} -video_track_timescale 600"),
                          ("no_edit_list.mp4", f"{COMMON['mp4']} -use_editlist 0"),
                          ("m2ts.m2ts", f"{COMMON['ts']} -mpegts_m2ts_mode 1"), ("dvd.vob", COMMON["mpg"]),
                          ("frames.y4m", "-pix_fmt yuv420p")):
        yield Kind("ways of writing", name, (f"{{source}} {options}",))
    yield from by_recorder()
    for suffix in ("ts", "mpg"):
        yield Kind("concatenated", f"concat.{suffix}", (
            f"{{source}} {COMMON[suffix]}", f"{{source}} -ss 1 {COMMON[suffix]} -output_ts_offset 2",
            "-i concat:{0}|{1} -c copy"))
    for suffix in ("mp4", "mkv", "ts"):
        first = f"{{source}} -t 1 {COMMON[suffix]}"
        for name, second in (("rates", "-vf setpts=2*PTS -r 12 -ss 2"), ("sizes", "-ss 1 -vf scale=128:96")):
            if (name, suffix) != ("sizes", "mkv"):   # no decoder would know of the second size
                yield Kind("concatenated", f"two_{name}.{suffix}", (
                    first, f"{{source}} {second} {COMMON[suffix]}", "-f concat -safe 0 -i {list} -c copy"))


def by_recorder() -> Iterator[Kind]:
    """Files as phones, screen recorders and streams leave them."""
    phone = "settb=1/600,setpts='20*N+floor(7*sin(N*5))+floor(N/10)*3'"   # shutter times follow the light
    yield Kind("recorders", "phone.mov", (
        f"{{source}} -vf \"transpose=2,{phone}\" -fps_mode passthrough -enc_time_base filter "
        f"{X265} -x265-params {QUIET}:keyint=30 -pix_fmt yuv420p10le -tag:v hvc1 -video_track_timescale 600",
        "-display_rotation 270 -i {0} -f lavfi -i sine=r=48000:d=2 -map 0 -map 1 -c:v copy"))
    yield Kind("recorders", "screen.webm", (   # frames only where something moves, one keyframe, no durations
        f"{{source}} -vf \"settb=1/1000,setpts='N*33+floor(N/12)*700'\" -fps_mode passthrough "
        f"-enc_time_base filter {VP8} -g 3000 -live 1",))
    with_sound = f"{{source}} -f lavfi -i sine=r=48000:d=4 {COMMON['mp4']} -c:a aac"
    for suffix in ("mp4", "mkv", "ts"):
        for name, delayed in (("picture", "-itsoffset 0.8 -i {0} -i {0} -map 0:v -map 1:a -c copy"),
                              ("sound", "-i {0} -itsoffset 1 -i {0} -map 0:v -map 1:a -c copy")):
            yield Kind("recorders", f"late_{name}.{suffix}", (with_sound, delayed))
    one_keyframe = f"{{source}} {X264} -pix_fmt yuv420p -x264-params keyint=infinite:scenecut=0:bframes=3"
    yield Kind("recorders", "one_keyframe.mp4", (one_keyframe,), num_frames=150)
    yield Kind("recorders", "cut_far_from_keyframe.mp4", (one_keyframe, "-ss 5 -i {0} -t 1 -c copy"),
               num_frames=150)
    for suffix in ("mp4", "mkv"):   # the first frames refer to one that is lost
        yield Kind("recorders", f"lost_keyframe.{suffix}", (
            f"{{source}} {X264} -pix_fmt yuv420p -g 20 -bf 2",
            "-i {0} -c copy -bsf:v noise=drop='eq(n\\,0)'"))
    yield Kind("recorders", "slides.mkv", (f"{{source}} {COMMON['mkv']}",), num_frames=6, rate="1/3")
    yield Kind("recorders", "repeated.mp4", (f"{{source}} {COMMON['mp4']}", "-stream_loop 2 -i {0} -c copy"))
    yield Kind("recorders", "dv_ntsc.avi", (
        "{source} -vf scale=720:480,setdar=4/3 -pix_fmt yuv411p -c:v dvvideo",), (160, 120), 12, "30000/1001")
    yield Kind("recorders", "animated.png", ("{source} -f apng -plays 0 -pred mixed",))


def main() -> None:
    folder, words = Path(sys.argv[1]), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    for kind in kinds():
        if all(word in f"{kind.theme} {kind.name}" for word in words):
            trouble = kind.write(folder)
            print(*map(shlex.join, kind.commands(folder)), f"# {trouble or 'written'}", sep="\n", flush=True)


if __name__ == "__main__":
    main()
