/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How soon a thread that was woken runs on a host whose processors are all at work.  Threads that
 * mostly wait, and on which others wait, ask for short turns: since Linux 6.12 the kernel lets such a thread
 * interrupt one with a longer turn, and gives it no more time for that.  Elsewhere nothing changes.
 */
#ifndef OS_PROMPT_H
#define OS_PROMPT_H

#include <stdbool.h>

/* For the calling thread and what it starts from now on.  False: as usual.  Keeps errno. */
void prompt_set(bool prompt);

#endif /* OS_PROMPT_H */
