# SPDX-License-Identifier: Apache-2.0
#
# What bench/run, bench/footprint and bench/nbdload_check share: the servers under comparison, the
# workloads, the machine's description, and the tables. Standard library only.
