/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 16550A serial port.  Output leaves through a callback at once, so the
 * transmitter is always empty; input waits in a queue that the guest drains.
 *
 * Threads: all functions from any thread.  Callbacks run under the port's lock
 * on the calling thread and must not call back into the port.
 *
 * Source: National Semiconductor PC16550D data sheet.
 */
#ifndef VMM_SERIAL_H
#define VMM_SERIAL_H

#include <stddef.h>
#include <stdint.h>

struct blob;
struct blob_reader;
struct bus;
struct err;
struct serial;
struct vm;

#define SERIAL_COM1_BASE 0x3f8u
#define SERIAL_COM1_IRQ 4u
#define SERIAL_QUEUE 4096	/* bytes of input kept */

/* Bytes the guest sent. */
typedef void (*serial_output_fn)(void *ctx, const uint8_t *data, size_t len);

/*
 * Makes a port at @port (8 ports) with interrupt line @gsi and puts it on vm->pio.
 * @vm and @ctx are borrowed and must outlive it.  0, -ENOMEM, or as bus_add().
 */
int serial_create(struct vm *vm, uint16_t port, unsigned gsi, serial_output_fn output, void *ctx,
		  struct serial **ret_serial, struct err *err);
void serial_destroy(struct serial *serial);	/* after the VM's threads ended; NULL is fine */

/* Appends registers and waiting input to @out.  Check out->failed. */
void serial_save(struct serial *serial, struct blob *out);
/* Takes them over, before vCPUs run.  0, or -EINVAL for bytes that are no such state. */
int serial_restore(struct serial *serial, struct blob_reader *in);

/* Queues input.  Returns how many of the @len bytes fitted. */
size_t serial_input(struct serial *serial, const uint8_t *data, size_t len);

#endif /* VMM_SERIAL_H */
