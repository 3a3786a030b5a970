/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/engines.h"

#include "engine/dbt/engine_dbt.h"
#include "engine/kvm/kvm.h"
#include "os/err.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

const struct engine_ops *const engines[] = { &kvm_engine, &dbt_engine, NULL };

int engine_choose(const char *name, const struct engine_ops **ret_engine, struct err *err)
{
	bool automatic = !name || strcmp(name, "auto") == 0;
	int r = -EINVAL;

	for (unsigned i = 0; engines[i]; i++) {
		if (!automatic && strcmp(engines[i]->name, name) != 0)
			continue;
		r = engines[i]->probe(err);
		if (r == 0) {
			*ret_engine = engines[i];
			return 0;
		}
		if (!automatic)
			return err_prefix(err, r, "engine %s does not work here", name);
	}
	if (automatic)
		return r;
	return err_set(err, -EINVAL, "unknown engine '%s'; there are auto, kvm and dbt", name);
}

const struct engine_ops *engine_named(const char *name)
{
	for (unsigned i = 0; engines[i]; i++)
		if (strcmp(engines[i]->name, name) == 0)
			return engines[i];
	return NULL;
}
