/* SPDX-License-Identifier: Apache-2.0 */
/* Every engine of this build, and the choice between them. */
#ifndef MACHINE_ENGINES_H
#define MACHINE_ENGINES_H

#include "vmm/engine.h"

struct err;

/* NULL-ended, in the order `auto` tries them. */
extern const struct engine_ops *const engines[];

/*
 * Finds the engine named @name; NULL or "auto" takes the first whose probe
 * succeeds.  Returns 0, -EINVAL for an unknown name, or what the (last) probe
 * returned.
 */
int engine_choose(const char *name, const struct engine_ops **ret_engine, struct err *err);

/* The engine named @name, not tried; NULL: there is none. */
const struct engine_ops *engine_named(const char *name);

#endif /* MACHINE_ENGINES_H */
