/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP connections of a guest that is a copy, or whose host knows nothing of them any more: their programs are told at
 * once (ECONNABORTED) instead of waiting for what never comes.
 */
#ifndef GUEST_STREAMS_H
#define GUEST_STREAMS_H

#include "guest/request.h"

/*
 * Ends all connections but those within the guest, unless by addresses that it leaves, and those with hosts of
 * @id->kept that are not among @id->outside.  0, or -1 with errno: EPROTONOSUPPORT when the kernel cannot.
 */
int streams_reset(const struct identity_request *id);

#endif /* GUEST_STREAMS_H */
