"""E and D as models: shapes, alignment, gradients, dropout, and building from named pretrained parts."""

from __future__ import annotations

import pytest
import torch
from tiny_parts import llama_config, t5_config
from transformers import AutoModelForCausalLM, LlamaForCausalLM, T5ForConditionalGeneration

from prip.errors import CheckpointError, InputError
from prip.modeling import PreferenceEncoder, PreferenceEncoderConfig, PripModel, PromptDecoder


@pytest.fixture
def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(3, 420, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    return ids, mask


@pytest.mark.parametrize(
    "changes", [{}, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 1}]
)
def test_encoder_gives_pivots_and_ignores_padding(changes, tokens) -> None:
    encoder = PreferenceEncoder.from_t5(t5_config(**changes), pivot_length=5, pivot_width=12).eval()
    ids, mask = tokens
    pivot = encoder(ids, mask)
    assert pivot.shape == (3, 5, 12)
    alone = encoder(ids[:1, :4], mask[:1, :4])
    assert torch.allclose(pivot[:1], alone, atol=1e-5)
    assert not torch.allclose(pivot[1], pivot[2], atol=1e-3)


def test_encoder_positions_differ(tokens) -> None:
    """Each query gives its own row of the pivot."""
    pivot = PreferenceEncoder.from_t5(t5_config(), 5, 12).eval()(*tokens)
    assert torch.cdist(pivot[1], pivot[1]).fill_diagonal_(1).min() > 1e-3


def test_dropout_is_off_in_evaluation_only(tokens) -> None:
    encoder = PreferenceEncoder.from_t5(t5_config(dropout_rate=0.5), 4, 16)
    encoder.train()
    assert not torch.equal(encoder(*tokens), encoder(*tokens))
    encoder.eval()
    assert torch.equal(encoder(*tokens), encoder(*tokens))


@pytest.mark.parametrize("with_pivot", [True, False])
def test_decoder_entry_t_chooses_token_t(tiny_processor, tokens, with_pivot: bool) -> None:
    """Entry t depends on the tokens before t and on the pivot, not on token t or what follows."""
    decoder = PromptDecoder.from_lm(
        llama_config(), tiny_processor.decoder_tokenizer, 4, 16, template="a photo {pivot} of"
    ).eval()
    ids = tokens[0]
    pivot = torch.randn(3, 4, 16) if with_pivot else None
    with torch.no_grad():
        output = decoder(pivot, ids)
        assert output.logits.shape == (3, 7, 420)
        assert output.hidden.shape == (3, 7, 32)
        assert torch.allclose(decoder.lm.lm_head(output.hidden), output.logits, atol=1e-5)
        changed = ids.clone()
        changed[:, 3] = (changed[:, 3] + 1) % 420
        other = decoder(pivot, changed).logits
    assert torch.allclose(output.logits[:, :4], other[:, :4], atol=1e-6)
    assert not torch.allclose(output.logits[:, 4], other[:, 4], atol=1e-3)


def test_decoder_reads_template_then_pivot_then_tokens(tiny_processor, tokens) -> None:
    """The same logits as the language model over embeddings that are put together by hand."""
    tokenizer = tiny_processor.decoder_tokenizer
    decoder = PromptDecoder.from_lm(llama_config(), tokenizer, 4, 16, template="a photo {pivot} of").eval()
    ids, pivot = tokens[0][:1], torch.randn(1, 4, 16)
    embed = decoder.lm.get_input_embeddings()
    before = [tokenizer.bos_token_id, *tokenizer.encode("a photo ", add_special_tokens=False)]
    after = tokenizer.encode(" of", add_special_tokens=False)
    with torch.no_grad():
        parts = [embed(torch.tensor([before])), decoder.projection(pivot), embed(torch.tensor([after])), embed(ids)]
        by_hand = decoder.lm(inputs_embeds=torch.cat(parts, 1)).logits[:, len(before) + 4 + len(after) - 1 : -1]
        assert torch.allclose(decoder(pivot, ids).logits, by_hand, atol=1e-5)


def test_right_padding_changes_nothing(tiny_model, tokens) -> None:
    ids, mask = tokens
    pivot = torch.randn(3, 4, 16)
    with torch.no_grad():
        padded = tiny_model.decoder(pivot, ids, mask).logits[0, :4]
        alone = tiny_model.decoder(pivot[:1], ids[:1, :4]).logits[0]
    assert torch.allclose(padded, alone, atol=1e-5)


def test_gradient_reaches_the_encoder_through_a_frozen_decoder(tiny_processor, tokens) -> None:
    encoder = PreferenceEncoder.from_t5(t5_config(), 4, 16)
    decoder = PromptDecoder.from_lm(llama_config(), tiny_processor.decoder_tokenizer, 4, 16).eval()
    decoder.requires_grad_(False)
    ids, mask = tokens
    logits = decoder(encoder(ids, mask), ids, mask).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
    missing = [name for name, weight in encoder.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert missing == []
    assert all(weight.grad is None for weight in decoder.parameters())


def test_from_pretrained_parts(tmp_path, tiny_processor, tokens) -> None:
    t5 = T5ForConditionalGeneration(t5_config(feed_forward_proj="gated-gelu", tie_word_embeddings=False))
    t5.save_pretrained(tmp_path / "t5")
    encoder = PreferenceEncoder.from_t5(str(tmp_path / "t5"), 4, 16)
    assert torch.equal(encoder.t5.shared.weight, t5.shared.weight)
    assert torch.equal(
        encoder.t5.decoder.block[1].layer[1].EncDecAttention.q.weight,
        t5.decoder.block[1].layer[1].EncDecAttention.q.weight,
    )
    LlamaForCausalLM(llama_config()).save_pretrained(tmp_path / "lm")
    decoder = PromptDecoder.from_lm(str(tmp_path / "lm"), tiny_processor.decoder_tokenizer, 4, 16)
    wanted = AutoModelForCausalLM.from_pretrained(tmp_path / "lm").lm_head.weight
    assert torch.equal(decoder.lm.lm_head.weight, wanted)
    PripModel(encoder, decoder).save_pretrained(tmp_path / "both")
    again = PripModel.from_pretrained(tmp_path / "both")
    assert torch.equal(again.encoder(*tokens), encoder.eval()(*tokens))


def test_foreign_parts_that_cannot_be_loaded(tmp_path, tiny_processor) -> None:
    with pytest.raises(CheckpointError, match="nowhere': neither .* nor a folder nor an owner/name on the Hub"):
        PreferenceEncoder.from_t5(str(tmp_path / "nowhere"), 4, 16)
    LlamaForCausalLM(llama_config()).save_pretrained(tmp_path / "lm")
    config = tmp_path / "lm" / "config.json"
    config.write_text(config.read_text().replace('"model_type": "llama"', '"model_type": "none-such"'))
    with pytest.raises(CheckpointError, match="cannot be loaded as a AutoModelForCausalLM: .*none-such"):
        PromptDecoder.from_lm(str(tmp_path / "lm"), tiny_processor.decoder_tokenizer, 4, 16)


@pytest.mark.parametrize("template", ["no marker", "{pivot} twice {pivot}"])
def test_bad_templates(template: str, tiny_processor) -> None:
    with pytest.raises(InputError, match="exactly once"):
        PromptDecoder.from_lm(llama_config(), tiny_processor.decoder_tokenizer, 4, 16, template=template)


def test_parts_must_agree_on_the_pivot(tiny_model) -> None:
    config = PreferenceEncoderConfig(t5=t5_config().to_dict(), pivot_length=3, pivot_width=16)
    with pytest.raises(InputError, match=r"\(3, 16\).*\(4, 16\)"):
        PripModel(PreferenceEncoder.from_config(config), tiny_model.decoder)
