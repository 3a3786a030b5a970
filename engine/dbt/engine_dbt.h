/* SPDX-License-Identifier: Apache-2.0 */
/* The binary translator: runs 64-bit guests on any x86-64 host, without /dev/kvm. */
#ifndef ENGINE_DBT_ENGINE_DBT_H
#define ENGINE_DBT_ENGINE_DBT_H

#include "vmm/engine.h"

extern const struct engine_ops dbt_engine;

#endif /* ENGINE_DBT_ENGINE_DBT_H */
