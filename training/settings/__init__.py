"""Settings of every stage: frozen dataclasses that check their values."""

from __future__ import annotations

from .decoder import DecoderSettings, LlamaSizes, LoraSettings
from .encoder import EncoderSettings, T5Sizes
from .export import ExportSettings
from .prepare import PrepareSettings, SystemPromptSettings
from .prior import PriorFitSettings, PriorSettings
from .rewrites import GainSettings, RewritesSettings, SessionSettings, SyntheticSettings
from .rl import ChunkSettings, PartsSettings, PpoSettings, RlSettings, RolloutSettings
from .shared import DrawingSettings, LoopSettings, OptimizerSettings, RunSettings, TrainSettings
from .stand_ins import StandInsSettings
from .tune import AnchorSettings, PullSettings, TuneDevSettings, TuneSettings
from .world import UnetSizes, WorldSettings
