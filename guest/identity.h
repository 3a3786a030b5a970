/* SPDX-License-Identifier: Apache-2.0 */
/* What tells a machine from others that were copied from the same template. */
#ifndef GUEST_IDENTITY_H
#define GUEST_IDENTITY_H

#include "guest/conf.h"
#include "guest/request.h"

/* What the machine was booted with; kept (borrowed), and changed by identity_take(). */
void identity_begin(struct conf *conf);

/*
 * Takes on what @identity has: clock, random numbers that nobody can foresee, name.  0, or -1
 * with errno: the machine must not go on, for it would share secrets with its like.
 */
int identity_take(const struct identity_request *identity);

#endif /* GUEST_IDENTITY_H */
