r"""CLIP as an image classifier whose head starts from prompts.

For class c and templates t, with the text encoder's unit-length embeddings $u_{ct}$,
$w_c = \sum_t u_{ct} / \lVert\sum_t u_{ct}\rVert$, and logits are $s\, v^\top w_c$ with the image's
unit-length embedding v and CLIP's own scale s: zero-shot classification by a prompt ensemble. The
head stays as it starts while adapters are trained; `modules_to_save: [prompt_head]` trains it too.

Reference: Radford et al., *Learning Transferable Visual Models From Natural Language Supervision*
(2021), section 3.1.4.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPConfig, CLIPModel, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from studies.backbones.head import Head

DEFAULT_PROMPTS = ("a photo of a {}.",)


class ClipClassifier(PreTrainedModel):
    """CLIP's image tower under a linear head without bias, (classes, width)."""

    config_class = CLIPConfig
    base_model_prefix = "clip"
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(self, config: CLIPConfig, clip: CLIPModel, weight: Tensor) -> None:
        super().__init__(config)
        self.vision_model = clip.vision_model
        self.visual_projection = clip.visual_projection
        self.prompt_head = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.prompt_head.weight = nn.Parameter(weight.clone())
        self.scale = float(clip.logit_scale.detach().exp())

    def get_input_embeddings(self) -> nn.Module:
        """The patch embedding, for gradient checkpointing with frozen inputs."""
        embedding: nn.Module = self.vision_model.get_input_embeddings()
        return embedding

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs: Any
    ) -> ImageClassifierOutput:
        """(batch, 3, height, width) and labels (batch,) -> loss and logits (batch, classes)."""
        pooled = self.vision_model(pixel_values=pixel_values).pooler_output
        image = nn.functional.normalize(self.visual_projection(pooled), dim=-1)
        logits = self.scale * self.prompt_head(image)
        loss = None if labels is None else nn.functional.cross_entropy(logits.float(), labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


def load_clip_classifier(source: str, head: Head, options: dict[str, Any]) -> ClipClassifier:
    """CLIP from `source` with its head made of `head.labels` in `head.prompts`."""
    clip = CLIPModel.from_pretrained(source, **options)
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    model = ClipClassifier(
        clip.config, clip, text_head(clip, tokenizer, head.labels, head.prompts or DEFAULT_PROMPTS)
    )
    model.config.id2label = dict(enumerate(head.labels))
    return model


@torch.no_grad()
def text_head(
    clip: CLIPModel, tokenizer: Any, labels: tuple[str, ...], prompts: tuple[str, ...]
) -> Tensor:
    """(classes, width): for each class the direction of its prompts' mean embedding."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # the text's embedding is read at its first end
    rows = []
    for label in labels:
        texts = [prompt.format(label.replace("_", " ")) for prompt in prompts]
        tokens = tokenizer(texts, padding=True, return_tensors="pt").to(clip.device)
        pooled = clip.text_model(**tokens).pooler_output
        units = nn.functional.normalize(clip.text_projection(pooled), dim=-1)
        rows.append(nn.functional.normalize(units.sum(dim=0), dim=-1))
    return torch.stack(rows)
