"""A causal transformer: a density of sequences of tokens of every length, begin to end.

p(x_1, ..., x_T) = prod_t p(x_t | x_1, ..., x_{t-1}) p(end | x_1, ..., x_T): one more symbol, the
boundary, stands before the first token, and the one after the last is predicted like any other; so
the density sums to one over the sequences of all lengths.

The network reads at most `context_length` tokens at once. Of longer sequences it reads windows that
half overlap, and each token is predicted in the first window that it is in: so from at least half a
window before it, or from the beginning. The past that a token is predicted from depends on its
place alone, so that this, too, is a density that sums to one; it is the one that scores, and the
one that draws. Rows, which say what is given and what is scored, are those of `token_rows`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional as F

from ppl_gen.neural.density import DensityModule
from ppl_gen.neural.token_rows import windows

__all__ = ["Memory", "Transformer", "rotated", "truncated"]


class Transformer(DensityModule):
    """A causal transformer over K symbols, with pre-norm blocks and rotary places.

    Parameters
    ----------
    n_symbols : int
        K.
    context_length : int
        Tokens, the boundary before the first one among them, that are read at once.
    n_layers, n_heads, width : int
        Blocks, heads of each, and numbers that stand for a token: an even number a head.
    dropout : float
        Share of what is left out in training: of embeddings, attention, and each block's output.
    context_width : int
        Covariates C of a sequence, which are added, by a linear map, to each of its tokens.

    Notes
    -----
    The embedding of the symbols is also the last layer's weight (Press & Wolf 2017). A row of
    `log_prob` has any width; one of `sample` has ``context_length + 1`` columns, the boundary
    before the first token and ``context_length`` that are drawn.

    References
    ----------
    Vaswani et al. (2017), Attention is all you need, arXiv:1706.03762, section 3. Radford et al.
    (2019), Language models are unsupervised multitask learners (GPT-2), section 2.3: pre-norm.
    Su et al. (2021), RoFormer, arXiv:2104.09864, equation 34: rotary places. Press & Wolf (2017),
    Using the output embedding to improve language models, arXiv:1608.05859.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> network = Transformer(2, context_length=8, n_layers=1, n_heads=1, width=8).eval()

    A sequence of two symbols begins in one of four ways, or ends before:

    >>> begun = [[~2, 0, 0], [~2, 0, 1], [~2, 1, 0], [~2, 1, 1]]
    >>> ended = [[~2, 0, 2], [~2, 1, 2], [~2, 2, ~2]]
    >>> round(network.log_prob(torch.tensor(begun + ended)).exp().sum().item(), 4)
    1.0
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        n_symbols: int,
        context_length: int = 256,
        n_layers: int = 4,
        n_heads: int = 4,
        width: int = 128,
        dropout: float = 0.1,
        context_width: int = 0,
    ) -> None:
        super().__init__(context_length + 1, context_width)
        self.n_symbols, self.context_length, self.n_heads = n_symbols, context_length, n_heads
        self.embedding = nn.Embedding(n_symbols + 1, width)
        self.covariates = nn.Linear(context_width, width) if context_width else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, n_heads, dropout) for _ in range(n_layers))
        self.norm = nn.LayerNorm(width)
        for name, weight in self.named_parameters():
            # As in GPT-2: what adds to the residual stream is small where many layers add.
            if weight.ndim == 2:
                deep = math.sqrt(2 * n_layers) if name.endswith("out.weight") else 1.0
                nn.init.normal_(weight, std=0.02 / deep)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)
        half = width // n_heads // 2
        angles = torch.arange(context_length)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cos", angles.cos(), persistent=False)  # (context_length, half)
        self.register_buffer("sin", angles.sin(), persistent=False)

    @property
    def support(self) -> constraints.Constraint:
        """Codes of tokens, and ``~`` of them."""
        bounds = ~self.n_symbols, self.n_symbols
        codes = constraints.integer_interval(*bounds)  # type: ignore[no-untyped-call]
        return constraints.independent(codes, 1)  # type: ignore[no-untyped-call]

    def forward(
        self, tokens: Tensor, context: Tensor | None = None, memory: "Memory | None" = None
    ) -> Tensor:
        """Logits of the token after each.

        Parameters
        ----------
        tokens : (n, L)
            Codes, at most `context_length` of them with those that are in memory.
        context : (n, C) or None
        memory : Memory or None
            Of the tokens before these, which takes these up.

        Returns
        -------
        (n, L, K + 1) tensor
        """
        first = 0 if memory is None else memory.length
        places = slice(first, first + tokens.shape[1])
        rotation = self.cos[places], self.sin[places]
        h = self.embedding(tokens)
        if self.covariates is not None:
            h = h + self.covariates(context)[:, None]
        h = self.dropout(h)
        for layer, block in enumerate(self.blocks):
            h = block(h, rotation, memory, layer)
        if memory is not None:
            memory.length += tokens.shape[1]
        return F.linear(self.norm(h), self.embedding.weight)

    # -- the density ---------------------------------------------------------------------------

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log probability of what is scored of each row, given what is not, in nats.

        Parameters
        ----------
        x : (n, L) integers
            Rows (see `token_rows`), of any length L of at least 2.
        context : (n, C) or None

        Returns
        -------
        (n,) tensor
        """
        if x.shape[1] > self.width:
            parts = windows(x, self.context_length, self.stride)  # (n, m, width)
            if context is not None:
                context = context.repeat_interleave(parts.shape[1], dim=0)
            return self.log_prob(parts.flatten(0, 1), context).view(parts.shape[:2]).sum(1)
        codes = torch.maximum(x, ~x)
        logits = self(codes[:, :-1], context)
        scored = x[:, 1:].clamp(min=-1)
        losses = F.cross_entropy(logits.mT, scored, ignore_index=-1, reduction="none")
        return -losses.sum(1)

    @property
    def stride(self) -> int:
        """Steps from a window to the next: half a window."""
        return self.context_length // 2

    def window_start(self, place: int) -> int:
        """Place of the first token that the one at `place`, counted from the boundary, sees."""
        beyond = max(0, place - self.context_length)
        return -(-beyond // self.stride) * self.stride

    # -- drawing -------------------------------------------------------------------------------

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """Draw n sequences from their beginning, as rows; those that are longer are cut.

        Parameters
        ----------
        n : int
        context : (n, C) or None

        Returns
        -------
        (n, context_length + 1) integers
        """
        begun = torch.full((n, 1), self.n_symbols, device=self.like().device)
        codes = self.generate(begun, self.context_length, context)
        after_end = F.pad(codes[:, 1:-1] == self.n_symbols, (2, 0))
        after_end[:, 0] = True  # the boundary before the first token is given, too
        return torch.where(after_end, ~codes, codes)

    @torch.no_grad()
    def generate(
        self,
        begun: Tensor,
        steps: int,
        context: Tensor | None = None,
        *,
        may_end: bool = True,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Go on with sequences, a token at a time, until all have ended.

        Keys and values of the tokens before are kept, so that a token costs one pass over one
        token, whatever came before, but for the attention to it. When the window is full, the
        next one's first half is read anew: one more token for each that is drawn.

        Parameters
        ----------
        begun : (n, L) codes
            The first of them is the boundary.
        steps : int
            How many tokens to add, the boundary at the end among them.
        context : (n, C) or None
        may_end : bool
            Whether sequences end before that; if not, the boundary is ruled out.
        temperature, top_k, top_p
            See `truncated`; logits are divided by the temperature before.

        Returns
        -------
        (n, L + steps) codes
            With boundaries from the end on.
        """
        end, count = self.n_symbols, begun.shape[1]
        codes = F.pad(begun, (0, steps), value=end)
        alive = torch.arange(len(codes), device=codes.device)
        going = torch.ones_like(alive, dtype=torch.bool)
        memory, start = None, 0
        for place in range(count, count + steps):
            if memory is None or self.window_start(place) != start:
                start = self.window_start(place)
                memory = Memory.of(self, len(alive))
                tokens = codes[alive, start:place]
            else:
                tokens = codes[alive, place - 1 : place]
            logits = self(tokens, context, memory)[:, -1] / temperature
            if not may_end:
                logits[:, end] = -torch.inf
            drawn = torch.multinomial(truncated(logits, top_k, top_p).softmax(1), 1)[:, 0]
            codes[alive, place] = torch.where(going, drawn, end)
            going = going & (drawn != end)
            if 2 * int(going.sum()) <= len(going):  # those that have ended leave the batch
                if not going.any():
                    break
                alive, context = alive[going], None if context is None else context[going]
                memory.keep(going)
                going = going[going]
        return codes


class Block(nn.Module):
    """Attention to what came before, then a perceptron a token; each adds to what it reads."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.perceptron_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, n_heads, dropout)
        self.hidden = nn.Linear(width, 4 * width)
        self.perceptron_out = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, h: Tensor, rotation: tuple[Tensor, Tensor], memory: "Memory | None", layer: int
    ) -> Tensor:
        """(n, L, width) -> (n, L, width)."""
        h = h + self.dropout(self.attention(self.attention_norm(h), rotation, memory, layer))
        inner = F.gelu(self.hidden(self.perceptron_norm(h)))
        added: Tensor = self.dropout(self.perceptron_out(inner))
        return h + added


class Attention(nn.Module):
    """Attention of every token to itself and those before it, by several heads."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, h: Tensor, rotation: tuple[Tensor, Tensor], memory: "Memory | None", layer: int
    ) -> Tensor:
        """(n, L, width) -> (n, L, width)."""
        n, length, width = h.shape
        parts = self.queries_keys_values(h).view(n, length, 3, self.n_heads, -1)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)  # (n, heads, L, width of a head)
        queries, keys = rotated(queries, *rotation), rotated(keys, *rotation)
        if memory is not None:
            keys, values = memory.extend(layer, keys, values)
        mixed = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=length > 1,  # a single token sees all that is in memory
        )
        joined: Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, width))
        return joined


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs of entries by angles that grow with the place: (..., L, d), (L, d / 2)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


@dataclass
class Memory:
    """Keys and values of the tokens that were read, with room for a whole window.

    Attributes
    ----------
    keys, values : (layers, n, heads, context_length, width of a head)
    length : int
        Tokens read. Either all at once, by an empty memory, or one after another.
    """

    keys: Tensor
    values: Tensor
    length: int = 0

    @classmethod
    def of(cls, network: Transformer, n: int) -> "Memory":
        """An empty memory for n sequences."""
        weight, heads = network.like(), network.n_heads
        head_width = weight.shape[1] // heads
        shape = (len(network.blocks), n, heads, network.context_length, head_width)
        return cls(weight.new_empty(shape), weight.new_empty(shape))

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take up the keys and values of new tokens, and return those of all."""
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def keep(self, rows: Tensor) -> None:
        """Forget the other sequences."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]


def truncated(logits: Tensor, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Rule out all but the likeliest symbols.

    Parameters
    ----------
    logits : (..., K)
    top_k : int or None
        Keep so many, and those as likely as the last of them.
    top_p : float or None
        Then, of what is left, keep the nucleus: the fewest that have this probability together.

    Returns
    -------
    (..., K) tensor
        -inf where ruled out.

    References
    ----------
    Fan, Lewis & Dauphin (2018), Hierarchical neural story generation, arXiv:1805.04833: top k.
    Holtzman et al. (2020), The curious case of neural text degeneration, arXiv:1904.09751,
    section 3.1: the nucleus.

    Examples
    --------
    >>> logits = torch.tensor([0.5, 0.3, 0.2]).log()
    >>> truncated(logits, top_p=0.6).softmax(0)
    tensor([0.6250, 0.3750, 0.0000])
    """
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p is not None and top_p < 1.0:
        ordered, order = logits.softmax(-1).sort(descending=True)
        before = ordered.cumsum(-1) - ordered  # the likeliest one has nothing before it, and stays
        ruled_out = torch.zeros_like(logits, dtype=torch.bool)
        logits = logits.masked_fill(ruled_out.scatter(-1, order, before >= top_p), -torch.inf)
    return logits
