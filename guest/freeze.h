/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All programs of the guest but the agent stopped while the host saves it: one that goes on in a copy does so only
 * after the copy has an identity, and random numbers, of its own.
 *
 * What is in the root control group is put into a group of ours, which is frozen, as are groups that programs have
 * made.  Programs see nothing of it but the time, and EINTR where a suspended computer would show it too (signal(7)).
 */
#ifndef GUEST_FREEZE_H
#define GUEST_FREEZE_H

/* Before that nothing is ever frozen: only where this program is init are all others its guest's. */
void freeze_allow(void);

/* 0; or -1 with errno, nothing being frozen then: ENOENT: the kernel has no control groups, EBUSY: it takes too long. */
int freeze_begin(void);

/* They go on, if they were frozen.  Also in a copy of the guest, and in another session than freeze_begin(). */
void freeze_end(void);

#endif /* GUEST_FREEZE_H */
