"""Vision transformers, tiny and small: 5.5 and 21.7 M parameters before the embedding.

Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021), with the widths of Touvron et al.,
"Training data-efficient image transformers" (DeiT, 2021). Parameters are called as in timm, whose
`vit_tiny_patch16_224` and `vit_small_patch16_224` fit with `patch=16` without their classifier
("head"); where the number of patches differs, positions are interpolated.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mien.networks import require_size
from mien.networks.head import Head
from mien.networks.layers import attention


def vit_tiny(
    embedding_size: int = 512, size: int = 112, dropout: float = 0.0, patch: int = 8
) -> nn.Module:
    """192 channels, 3 heads, 12 blocks. `size` is a multiple of `patch`, both in pixels."""
    require_size("vit_tiny", size, patch, patch)
    return VisionTransformer(192, 3, size // patch, patch, embedding_size, dropout)


def vit_small(
    embedding_size: int = 512, size: int = 112, dropout: float = 0.0, patch: int = 8
) -> nn.Module:
    """384 channels, 6 heads, 12 blocks. `size` is a multiple of `patch`, both in pixels."""
    require_size("vit_small", size, patch, patch)
    return VisionTransformer(384, 6, size // patch, patch, embedding_size, dropout)


class VisionTransformer(nn.Module):
    def __init__(
        self, width: int, heads: int, grid: int, patch: int, embedding_size: int, dropout: float
    ) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid + 1, width))
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(12)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.embedding = Head(width, embedding_size, dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.patch_embed.proj.weight, std=(3 * patch * patch) ** -0.5)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        first = self.cls_token.expand(patches.shape[0], -1, -1)
        x = self.blocks(torch.cat([first, patches], dim=1) + self.pos_embed)
        return self.embedding(self.norm(x)[:, 0])

    def fitted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict with its positions interpolated to the grid of this network."""
        if "pos_embed" not in state:
            return state
        return state | {"pos_embed": _resize(state["pos_embed"], self.pos_embed.shape[1])}


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(width, 4 * width)
        self.mlp.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp.fc2(functional.gelu(self.mlp.fc1(self.norm2(x))))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        shape = (n, tokens, 3, self._heads, width // self._heads)
        query, key, value = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4)
        mixed = attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(n, tokens, width))


def _resize(positions: Tensor, tokens: int) -> Tensor:
    """Positions (1, 1 + grid * grid, width) for another square grid, by bicubic interpolation."""
    if positions.shape[1] == tokens:
        return positions
    first, rest = positions[:, :1], positions[:, 1:]
    old, new = (round((count - 1) ** 0.5) for count in (positions.shape[1], tokens))
    plane = rest.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    plane = functional.interpolate(plane, (new, new), mode="bicubic", antialias=True)
    return torch.cat([first, plane.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
