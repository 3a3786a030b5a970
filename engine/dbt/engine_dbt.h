/* SPDX-License-Identifier: Apache-2.0 */
/* The binary translator: runs 64-bit guests on any x86-64 host, without /dev/kvm. */
#ifndef ENGINE_DBT_ENGINE_DBT_H
#define ENGINE_DBT_ENGINE_DBT_H

#include "vmm/engine.h"

extern const struct engine_ops dbt_engine;

/*
 * For tests: translates, from now on, as for a host whose LOOP is quick or is not (emit.h).  Which one it is, is found out when a
 * VM is made.
 */
void dbt_use_loop(bool quick);

#endif /* ENGINE_DBT_ENGINE_DBT_H */
