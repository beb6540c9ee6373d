"""Clips for pretraining, drawn all the while by other processes and kept as latents on the training device.

Drawing needs CPU cores only, training one device: neither waits for the other for long. The processes put
drawn clips into a queue of limited length. Whoever trains takes what has arrived, as frames for the
autoencoder or, once there is one, as latents for the UNet. Clip i of a seed is always the same clip. A run
that goes on draws clips that it has not seen.

Shapes: n clips, k captions of a clip, f frames, c channels, h w pixels or latent cells, t tokens.
"""

import os
import queue
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import parent_process
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor
from torch.multiprocessing import get_context

from puppets import theatre
from puppets.base_captions import write_training_caption
from puppets.base_networks import to_vae_pixels
from puppets.tokenizer import tokenize

SEEDS = {"everyday": 6312, "composed": 6314}    # of clips of everyday motions, of motions named by parts
KINDS = ("everyday", "composed", "composed")    # one clip of three shows an everyday motion
NUM_CAPTIONS = 4                                # wordings of each clip
QUEUE_LENGTH = 4                                # shards drawn and not yet taken
MOVING = 10                                     # deviation over time, of 255, of a pixel that moves
EMPTY_CAPTIONS = 0.1                            # share of training examples without a caption, for guidance


class ClipStream:
    """Processes that draw clips, and the clips that have arrived from them.

    `num_drawn` counts the shards taken so far, by this run and by the one it goes on from: drawing goes on
    behind them. `num_kept` limits how many clips are kept as latents, `num_waiting` how many wait as frames:
    newer clips replace the oldest. The UNet begins with clips that were drawn while the autoencoder trained.
    Where `world_size` processes train, each has a stream. Stream `rank` draws every `world_size`-th shard.
    """

    def __init__(self, tokenizer_dir: Path, num_workers: int, shard_clips: int, num_kept: int,
                 num_waiting: int, device: torch.device, num_drawn: int = 0, rank: int = 0,
                 world_size: int = 1):
        context = get_context("spawn")
        self.device, self.num_kept, self.num_drawn = device, num_kept, num_drawn
        # shards that are not encoded yet
        self.frames: deque[tuple[Tensor, Tensor]] = deque(maxlen=max(1, num_waiting // shard_clips))
        self.most_waiting = self.frames.maxlen * shard_clips   # clips
        self.latents: Tensor | None = None
        self.num_encoded = 0
        self._queue = context.Queue(QUEUE_LENGTH)
        self._workers = [
            context.Process(target=_draw_for_ever, daemon=True,
                            args=(self._queue, tokenizer_dir, shard_clips,
                                  (num_drawn + worker) * world_size + rank, num_workers * world_size))
            for worker in range(num_workers)]
        threads = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        os.environ |= dict.fromkeys(threads, "1")   # a process that draws has one core
        for worker in self._workers:
            worker.start()
        for name, value in threads.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)

    @property
    def num_clips(self) -> int:
        """Clips that can be learned from: as latents, and waiting as frames."""
        return self.num_encoded + sum(len(ids) for _, ids in self.frames)

    def take(self, wait: bool = False) -> bool:
        """Take over one shard if one has arrived, or `wait` for it; say whether one was taken."""
        try:
            frames, ids = self._queue.get(timeout=600 if wait else 0.001)
        except queue.Empty:
            if wait:
                raise RuntimeError("no clips arrive: the processes that draw them have died") from None
            return False
        self.frames.append(tuple(torch.from_numpy(part).to(self.device) for part in (frames, ids)))
        self.num_drawn += 1
        return True

    def encode_waiting(self, vae: AutoencoderKL, wanted: float) -> None:
        """Encode waiting frames, oldest first, until `wanted` clips have been encoded since the start. Frames
        that have been encoded are let go."""
        while self.frames and self.num_encoded < wanted:
            frames, ids = self.frames.popleft()                                       # (n f h w c), (n k t)
            latents = encode_clips(vae, frames).half()                                          # (n c f h w)
            if self.latents is None:
                self.latents = latents.new_zeros(self.num_kept, *latents.shape[1:])
                self.ids = ids.new_zeros(self.num_kept, *ids.shape[1:])
            places = torch.arange(self.num_encoded, self.num_encoded + len(ids)) % self.num_kept
            self.latents[places], self.ids[places] = latents, ids
            self.num_encoded += len(ids)

    def draw_frames(self, num: int) -> tuple[Tensor, Tensor]:
        """Return `num` random frames of one of the shards that wait, as pixels (b c h w) in [-1, 1], and
        where something moves in the clip of each, 0 or 1 (b 1 h w)."""
        clips = self.frames[int(torch.randint(len(self.frames), ()))][0]                       # (n f h w c)
        clips = clips[torch.randint(len(clips), (num,), device=self.device)]
        at = torch.randint(clips.shape[1], (num,), device=self.device)
        return to_vae_pixels(clips[torch.arange(num, device=self.device), at]), moving_pixels(clips)

    def draw_latents(self, num: int, empty_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return latents (b c f h w) of `num` random clips and token ids (b t) of a caption of each.

        One caption of ten is `empty_ids` (t), so that guidance works.
        """
        at = torch.randint(min(self.num_encoded, self.num_kept), (num,), device=self.device)
        ids = self.ids[at, torch.randint(NUM_CAPTIONS, (num,), device=self.device)].long()
        ids[torch.rand(num, device=self.device) < EMPTY_CAPTIONS] = empty_ids
        return self.latents[at].float(), ids

    def close(self) -> None:
        """End the processes that draw."""
        for worker in self._workers:
            worker.terminate()


def moving_pixels(clips: Tensor) -> Tensor:
    """Return where something moves in uint8 clips (n f h w c), and next to it: 0 or 1 (n 1 h w)."""
    deviation = clips.float().std(dim=1).mean(dim=-1)                                            # (n h w)
    return F.max_pool2d((deviation > MOVING).float()[:, None], 3, stride=1, padding=1)


@torch.no_grad()
def encode_clips(vae: AutoencoderKL, frames: Tensor, frames_at_once: int = 1024) -> Tensor:
    """Return the means of the posterior (n c f h w) of uint8 frames (n f h w c)."""
    parts = rearrange(frames, "n f h w c -> (n f) h w c").split(frames_at_once)
    means = torch.cat([vae.encode(to_vae_pixels(part)).latent_dist.mean for part in parts])
    return rearrange(means, "(n f) c h w -> n c f h w", n=len(frames))


def draw_shard(tokenizer, index: int, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Return shard `index` of `num` clips: uint8 frames (n f h w c) and token ids of captions (n k t)."""
    turn, place = divmod(index, len(KINDS))
    kind = KINDS[place]
    draw: Callable = theatre.draw_clips if kind == "everyday" else theatre.draw_composed_clips
    number = turn * KINDS.count(kind) + KINDS[:place].count(kind)   # among the shards of this kind
    clips, rng = draw(num, SEEDS[kind], first=number * num), np.random.default_rng((SEEDS[kind], 9, number))
    captions = [write_training_caption(scene, rng)[0] for scene in clips.scenes for _ in range(NUM_CAPTIONS)]
    ids = tokenize(tokenizer, captions).numpy().astype(np.int32)
    return clips.frames, rearrange(ids, "(n k) t -> n k t", n=num)


def _draw_for_ever(shards, tokenizer_dir: Path, num: int, first: int, stride: int) -> None:
    from transformers import CLIPTokenizer

    os.nice(10)
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_dir)
    shards.cancel_join_thread()   # so that shards which nobody takes do not keep this process alive
    while parent_process().is_alive():   # the process that trains may have been killed
        shard, first = draw_shard(tokenizer, first, num), first + stride
        while parent_process().is_alive():
            with suppress(queue.Full):
                shards.put(shard, timeout=5)
                break
