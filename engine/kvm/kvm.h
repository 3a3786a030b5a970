/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine that runs guest code on the processor, through Linux's KVM.
 *
 * Interrupt controllers live in the kernel.  A vCPU is kicked with SIGRTMIN,
 * which its thread blocks everywhere but inside KVM_RUN: no handler is installed
 * and the process's own use of signals does not change.
 */
#ifndef ENGINE_KVM_KVM_H
#define ENGINE_KVM_KVM_H

#include "vmm/engine.h"

extern const struct engine_ops kvm_engine;

#endif /* ENGINE_KVM_KVM_H */
