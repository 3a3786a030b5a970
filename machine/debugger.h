/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A GDB that debugs the guest from outside: the TCP port it connects to, and what
 * struct gdb_target asks for, done with a struct vm.
 *
 * One GDB at a time.  Connecting stops the machine; when GDB detaches or is gone
 * the machine goes on, without any break- or watchpoint left.
 *
 * Threads: all functions on the loop's thread, or before it runs.
 */
#ifndef MACHINE_DEBUGGER_H
#define MACHINE_DEBUGGER_H

#include <stdbool.h>
#include <stdint.h>

struct debugger;
struct err;
struct loop;
struct vm;

/*
 * Listens on 127.0.0.1:@port (0: a free one) for the life of @vm, whose vCPUs have
 * not been started.  @wait: they stay stopped until GDB lets them go.  @loop and
 * @vm are borrowed.  0, or a negative errno with a sentence.
 */
int debugger_create(struct loop *loop, struct vm *vm, uint16_t port, bool wait, struct debugger **ret_debugger,
		    struct err *err);

/* The port listened on. */
uint16_t debugger_port(const struct debugger *debugger);

/* Tells GDB that the machine has ended. */
void debugger_ended(struct debugger *debugger);

/* After vm_stop(), while the struct vm is still there.  NULL is fine. */
void debugger_destroy(struct debugger *debugger);

#endif /* MACHINE_DEBUGGER_H */
