/* SPDX-License-Identifier: Apache-2.0 */
/* A process's part of the CPUs without a control group (os/cgroup.h). */
#ifndef OS_WEIGHT_H
#define OS_WEIGHT_H

#include <stdint.h>

struct err;

/*
 * Gives all threads of process @pid the CPU weight @shares (2 to 262144, 1024 is
 * everybody's) by their nice value: it needs no cgroup of our own.  More than 1024
 * needs the right to raise priorities.  0 or a negative errno with a sentence.
 */
int weight_set(int pid, uint32_t shares, struct err *err);

/* The nice value (-20 to 19) whose weight is nearest: each step is worth a factor of 1.25. */
int weight_to_nice(uint32_t shares);

#endif /* OS_WEIGHT_H */
