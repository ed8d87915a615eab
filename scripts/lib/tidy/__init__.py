# SPDX-License-Identifier: Apache-2.0
#
# The rules of scripts/tidy. Importing the modules puts their rules in the list.

from . import docs, structure, words  # noqa: F401
from .rules import RULES, Finding, check  # noqa: F401
