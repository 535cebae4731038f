"""Bytes of a model and of one training step, counted without weights: a dry run of the real code.

`without_values` replaces the tensors of a model on torch's meta device by fake ones, which have a shape, a type and a
device, but no bytes. Forward and backward pass then run as always, so the result follows the code: the attention that
is chosen, recomputed layers, adapters, casts by autocast, logits at supervised positions only. A dry run of a model
with 8 billion parameters takes seconds and no memory.

Not included: values that no tensor of torch holds, such as work space of CUDA libraries, and blocks that the allocator
holds back.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from transformers import PreTrainedTokenizerFast

from lavis_emovit.distributed.devices import AMP_DTYPES
from lavis_emovit.models.lengths import PassSizes
from lavis_emovit.models.lora import base_name, is_adapter
from lavis_emovit.models.part_names import Prefixes, part_of
from lavis_emovit.models.quantize import quantized_bytes

ADAPTERS = "adapters"
WORD = "a "  # one token for the tokenizer below


@dataclass(frozen=True)
class StepLoad:
    """What a micro-batch consists of.

    Attributes:
        num_images: images of one forward pass.
        pairs_per_image: questions with answers for each image.
        question_tokens, answer_tokens: of each pair, with the question's begin token and the answer's end token.
        num_frames: frames of an image that is a clip, or 2 for a whole image with its crop.
    """

    num_images: int
    pairs_per_image: int
    question_tokens: int
    answer_tokens: int
    num_frames: int = 1


@dataclass(frozen=True)
class PartBytes:
    """Weights of one part in one precision."""

    part: str
    precision: str
    is_trained: bool
    num_parameters: int
    num_bytes: int


@dataclass(frozen=True)
class StepMemory:
    """Bytes of weights, and of one micro-batch beside them.

    Attributes:
        weights: of every part.
        activations: kept from the forward to the backward pass, without logits; includes the batch's images and
            weights that autocast has cast.
        logits: kept from the output head to the backward pass.
        peak: largest sum of all tensors but weights and gradients of weights, at any time of the step.
        peak_with_gradients: the same with the gradients that exist at that time, if none exists before the step.
        num_operations: computed tensors, each a kernel of the device.
        flops: operations that were really computed: with padding, recomputed layers and attention.
        sizes: what the forward pass ran over.
        model_flops: operations that the samples need at least, without recomputed layers.
        recomputes: whether layers run again in the backward pass.
    """

    weights: tuple[PartBytes, ...]
    activations: int
    logits: int
    peak: int
    peak_with_gradients: int
    num_operations: int
    flops: float
    sizes: PassSizes
    model_flops: float
    recomputes: bool

    @property
    def num_trained(self) -> int:
        """Trained parameters; their gradients and masters are float32."""
        return sum(part.num_parameters for part in self.weights if part.is_trained)

    @property
    def weight_bytes(self) -> int:
        return sum(part.num_bytes for part in self.weights)

    @property
    def frozen_bytes(self) -> int:
        return sum(part.num_bytes for part in self.weights if not part.is_trained)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer without files: every word is one token."""
    vocabulary = {"[PAD]": 0, "<s>": 1, "</s>": 2, "[UNK]": 3, "a": 4}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="[PAD]", unk_token="[UNK]"
    )
    made.truncation_side = "left"
    return made


def without_values(module: nn.Module) -> None:
    """Replace tensors on the meta device by fake ones of the CPU, in place."""
    mode, device = FakeTensorMode(allow_non_fake_inputs=True), torch.device("cpu")
    made: dict[nn.Parameter, nn.Parameter] = {}  # tied weights stay tied
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            if parameter not in made:
                fake = FakeTensor(mode, parameter.data, device)
                made[parameter] = nn.Parameter(fake, requires_grad=parameter.requires_grad)
            part.register_parameter(name, made[parameter])
        for name, buffer in list(part.named_buffers(recurse=False)):
            if buffer.is_floating_point():
                part._buffers[name] = FakeTensor(mode, buffer, device)
            else:  # positions: masks are made of them, and code may depend on the values of a mask
                part._buffers[name] = torch.arange(buffer.shape[-1]).expand(buffer.shape)


def count_weights(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    prefixes: Prefixes,
    precision: str = "",
    quantized: Collection[str] = (),
) -> tuple[PartBytes, ...]:
    """Bytes of the weights by part, precision and whether they are trained.

    Args:
        prefixes: part -> prefixes of its parameters.
        precision: `int8` or `nf4`, of the parameters in `quantized`, named as in a model without adapters.
    """
    sums: dict[tuple[str, str, bool], list[int]] = {}
    for name, parameter in named_parameters:
        part = ADAPTERS if is_adapter(name) else part_of(name, prefixes)
        kind, size = str(parameter.dtype).removeprefix("torch."), parameter.numel() * parameter.element_size()
        if base_name(name) in quantized:
            kind, size = precision, quantized_bytes(parameter, precision)
        row = sums.setdefault((part, kind, parameter.requires_grad), [0, 0])
        row[0] += parameter.numel()
        row[1] += size
    return tuple(PartBytes(*key, *row) for key, row in sums.items())


def count_step(model: Any, load: StepLoad, amp: str, *, weights: tuple[PartBytes, ...], logit_width: int) -> StepMemory:
    """Bytes of a training step of a model whose tensors have no values.

    Args:
        model: an emotion model in train mode, with tokenizers for which `WORD` is one token.
        amp: as in `run.amp`.
        weights: of the model, for the result.
        logit_width: V, the last dimension of logits.
    """
    batch = sized_batch(model, load)
    gradients: list[int] = []
    counter = _LiveBytes(model.parameters(), gradients, logit_width)
    handles = [
        parameter.register_post_accumulate_grad_hook(lambda p: _take_gradient(p, gradients))
        for parameter in model.parameters()
        if parameter.requires_grad
    ]
    dtype = AMP_DTYPES.get(amp)
    with counter:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            loss = model.answer_loss(batch)
        kept, logits = counter.now, counter.logits()
        if loss.loss_sum.requires_grad:
            loss.loss_sum.backward()
    for handle in handles:
        handle.remove()
    images = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(batch["image"]))
    step_flops = model.step_flops()
    return StepMemory(
        weights=weights,
        activations=kept - logits + images,
        logits=logits,
        peak=counter.peak + images,
        peak_with_gradients=counter.peak_with_gradients + images,
        num_operations=counter.num_operations,
        flops=counter.flops,
        sizes=loss.sizes,
        # Of a model that does not count them: those that were computed.
        model_flops=counter.flops if step_flops is None else step_flops.total(loss.sizes),
        recomputes=model.settings.use_grad_checkpoint,
    )


def sized_batch(model: Any, load: StepLoad) -> dict[str, Any]:
    """A batch with texts of these lengths, for tokenizers that read one token in each word."""
    num_pairs = load.num_images * load.pairs_per_image
    return {
        "image": model.sized_images(load.num_images, load.num_frames),
        "image_index": torch.arange(load.num_images).repeat_interleave(load.pairs_per_image),
        "text_input": [WORD * (load.question_tokens - 1)] * num_pairs,
        "text_output": [WORD * (load.answer_tokens - 1)] * num_pairs,
    }


def _tensors(images: Any) -> list[torch.Tensor]:
    """The tensors of a batch of images."""
    return [images] if isinstance(images, torch.Tensor) else list(images.stack().values())


def _take_gradient(parameter: torch.Tensor, gradients: list[int]) -> None:
    """Count a gradient by itself, so that the peak without gradients is known."""
    gradients.append(parameter.numel() * parameter.element_size())
    parameter.grad = None


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations inside the context made and that still exist.

    Args:
        weights: tensors that do not count.
        gradients: bytes of the gradients so far; another function adds to it.
        logit_width: last dimension of logits.
    """

    def __init__(self, weights: Iterable[torch.Tensor], gradients: list[int], logit_width: int):
        super().__init__()
        self.now = self.peak = self.peak_with_gradients = self.num_operations = 0
        self.flops = 0.0
        self._gradients, self._logit_width = gradients, logit_width
        self._weights = {weight.untyped_storage()._cdata for weight in weights}
        self._live: dict[int, tuple[int, bool]] = {}  # storage -> bytes, and whether they are logits

    def logits(self) -> int:
        return sum(size for size, is_logits in self._live.values() if is_logits)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        made = [self._add(tensor) for tensor in tree_leaves(result) if isinstance(tensor, torch.Tensor)]
        self.num_operations += any(made)
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **kwargs, out_val=result)
        return result

    def _add(self, tensor: torch.Tensor) -> bool:
        """Count a tensor, unless it is a view of one that counts or of a weight."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live or key in self._weights:
            return False
        is_logits = tensor.is_floating_point() and tensor.dim() == 2 and tensor.shape[-1] == self._logit_width
        self._live[key] = storage.nbytes(), is_logits
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        self.peak_with_gradients = max(self.peak_with_gradients, self.now + sum(self._gradients))
        weakref.finalize(storage, self._drop, key)
        return True

    def _drop(self, key: int) -> None:
        self.now -= self._live.pop(key)[0]
