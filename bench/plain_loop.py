"""The ordinary training loop that ours is measured against, written as its libraries teach it.

ImageFolder, torchvision transforms, a DataLoader with two workers, eager NCHW modules, torch's
default threads, SGD with Nesterov momentum; on a GPU with automatic mixed precision where it is
asked for. Tall pictures are laid on their side, as ours are.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from weighin.network.build import build, initialize
from weighin.network.spec import NetworkSpec

BATCH = 128
LR, MOMENTUM = 0.05, 0.9
SHIFT, COLOR = 0.1, 0.2


class PlainLoop:
    """A network, its optimiser and its batches."""

    def __init__(
        self,
        spec: NetworkSpec,
        photographs: Path,
        names: list[str] | None,
        seed: int,
        device: str = "cpu",
        amp: bool = False,
        workers: int = 2,
        batch: int = BATCH,
    ) -> None:
        """Train on the files named (relative to the folder), or on all of them."""
        torch.manual_seed(seed)
        images = _folder(photographs, _changed(spec))
        chosen = _subset(images, photographs, names) if names else images
        self.batches: Any = DataLoader(
            chosen,
            batch,
            shuffle=True,
            num_workers=workers,
            drop_last=True,
            pin_memory=device == "cuda",
        )
        self.device, self.amp, self.batch = device, amp, batch
        self.module: nn.Module = build(spec, len(images.classes))
        initialize(self.module, seed)
        self.module.to(device)
        self.scaler = torch.amp.GradScaler(device, enabled=amp)
        parameters = self.module.parameters()
        self.optimizer = torch.optim.SGD(parameters, LR, MOMENTUM, nesterov=True)

    def steps(self) -> Iterator[int]:
        """Train an epoch, yielding after each batch."""
        self.module.train()
        for number, (inputs, labels) in enumerate(self.batches):
            inputs, labels = inputs.to(self.device), labels.to(self.device)
            self.optimizer.zero_grad()
            with torch.autocast(self.device, enabled=self.amp):
                loss = nn.functional.cross_entropy(self.module(inputs), labels)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self.scaler.step(self.optimizer)
            self.scaler.update()
            yield number

    def speed(self) -> float:
        """Return images/s of an epoch after its first two batches."""
        began = 0.0
        for number in self.steps():
            if number == 1:
                began = time.perf_counter()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return (len(self.batches) - 2) * self.batch / (time.perf_counter() - began)


def learned_f1(spec: NetworkSpec, photographs: Path, pack: Path, epochs: int, seed: int) -> float:
    """Return macro F1 on the pack's validation split after training on its other images."""
    from weighin.data.pack import read_packed
    from weighin.grading.score import confusion_of_indices

    train, held = (read_packed(pack, split, spec.input) for split in ("train", "validation"))
    loop = PlainLoop(spec, photographs, train.names, seed)
    for _ in range(epochs):
        for _ in loop.steps():
            pass
    loop.module.eval()
    found = _subset(_folder(photographs, _plain(spec)), photographs, held.names)
    with torch.inference_mode():
        parts = [loop.module(inputs).argmax(1) for inputs, _ in DataLoader(found, BATCH)]
    return confusion_of_indices(held.labels, torch.cat(parts).numpy(), held.classes).f1


def _folder(photographs: Path, steps: list[Any]) -> ImageFolder:
    return ImageFolder(str(photographs), transforms.Compose(steps))


def _subset(images: ImageFolder, photographs: Path, names: list[str]) -> Subset[Any]:
    place = {
        Path(path).relative_to(photographs).as_posix(): i for i, (path, _) in enumerate(images.imgs)
    }
    return Subset(images, [place[name] for name in names])


def _plain(spec: NetworkSpec) -> list[Any]:
    turned = transforms.Lambda(_turned)
    return [
        turned,
        transforms.Resize(spec.input),
        transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.5] * 3),
    ]


def _changed(spec: NetworkSpec) -> list[Any]:
    changes = [
        transforms.RandomHorizontalFlip(),
        transforms.RandomAffine(0, (SHIFT, SHIFT)),
        transforms.ColorJitter(COLOR, COLOR, COLOR),
    ]
    start, end = _plain(spec)[:2], _plain(spec)[2:]
    return [*start, *changes, *end]


def _turned(image: Any) -> Any:
    return image.rotate(90, expand=True) if image.height > image.width else image
