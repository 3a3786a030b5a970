/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/serial.h"

#include "os/blob.h"
#include "os/err.h"
#include "vmm/vm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR };	/* register numbers */

enum { IER_RX = 1, IER_TX_EMPTY = 2, IER_MASK = 0x0f };
enum { IIR_NONE = 1, IIR_TX_EMPTY = 2, IIR_RX = 4, IIR_FIFO = 0xc0 };
enum { FCR_ENABLE = 1, FCR_CLEAR_RX = 2 };
enum { LCR_DLAB = 0x80 };
enum { MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 0x10, MCR_MASK = 0x1f };
enum { LSR_RX = 1, LSR_TX_EMPTY = 0x60 };
enum { MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };

struct serial {
	struct vm *vm;	/* borrowed */
	unsigned gsi;
	serial_output_fn output;
	void *ctx;

	pthread_mutex_t lock;	/* guards all below */
	uint8_t ier, lcr, mcr, scr, fifo;
	uint8_t divisor[2];
	bool tx_empty_pending;	/* "transmitter empty" not yet reported */
	bool line;	/* level of the interrupt line */
	uint8_t queue[SERIAL_QUEUE];
	size_t head, used;
};

/* Highest-priority pending cause, as the IIR shows it. */
static uint8_t cause(const struct serial *s)
{
	if ((s->ier & IER_RX) && s->used)
		return IIR_RX;
	if ((s->ier & IER_TX_EMPTY) && s->tx_empty_pending)
		return IIR_TX_EMPTY;
	return IIR_NONE;
}

/* OUT2 gates the interrupt, as on every PC. */
static void update_line(struct serial *s)
{
	bool level = cause(s) != IIR_NONE && (s->mcr & MCR_OUT2);

	if (level != s->line) {
		s->line = level;
		vm_irq_set(s->vm, s->gsi, level);
	}
}

static bool put(struct serial *s, uint8_t byte)
{
	if (s->used == SERIAL_QUEUE)
		return false;
	s->queue[(s->head + s->used++) % SERIAL_QUEUE] = byte;
	return true;
}

static uint8_t take(struct serial *s)
{
	uint8_t byte = s->queue[s->head];

	if (!s->used)
		return 0;
	s->head = (s->head + 1) % SERIAL_QUEUE;
	s->used--;
	return byte;
}

static uint8_t modem_status(const struct serial *s)
{
	if (!(s->mcr & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	/* Loop-back: RTS, DTR, OUT1, OUT2 come back as CTS, DSR, RI, DCD. */
	return (uint8_t)((s->mcr & 2) << 3 | (s->mcr & 1) << 5 | (s->mcr & MCR_OUT1) << 4 |
			 (s->mcr & MCR_OUT2) << 4);
}

static uint8_t read_iir(struct serial *s)
{
	uint8_t c = cause(s);

	if (c == IIR_TX_EMPTY)	/* reading the cause acknowledges it */
		s->tx_empty_pending = false;
	return (uint8_t)(c | (s->fifo ? IIR_FIFO : 0));
}

static uint8_t read_reg(struct serial *s, uint64_t reg)
{
	bool dlab = s->lcr & LCR_DLAB;

	switch (reg) {
	case RBR_THR: return dlab ? s->divisor[0] : take(s);
	case IER: return dlab ? s->divisor[1] : s->ier;
	case IIR_FCR: return read_iir(s);
	case LCR: return s->lcr;
	case MCR: return s->mcr;
	case LSR: return (uint8_t)(LSR_TX_EMPTY | (s->used ? LSR_RX : 0));
	case MSR: return modem_status(s);
	default: return s->scr;
	}
}

static void transmit(struct serial *s, uint8_t byte)
{
	if (s->mcr & MCR_LOOP)
		(void)put(s, byte);
	else if (s->output)
		s->output(s->ctx, &byte, 1);
	s->tx_empty_pending = true;
}

static void write_ier(struct serial *s, uint8_t value)
{
	/* Enabling "transmitter empty" while it is empty reports it once. */
	if (!(s->ier & IER_TX_EMPTY) && (value & IER_TX_EMPTY))
		s->tx_empty_pending = true;
	s->ier = value & IER_MASK;
}

static void write_reg(struct serial *s, uint64_t reg, uint8_t value)
{
	bool dlab = s->lcr & LCR_DLAB;

	switch (reg) {
	case RBR_THR:
		if (dlab)
			s->divisor[0] = value;
		else
			transmit(s, value);
		break;
	case IER:
		if (dlab)
			s->divisor[1] = value;
		else
			write_ier(s, value);
		break;
	case IIR_FCR:
		s->fifo = value & FCR_ENABLE;
		if (value & FCR_CLEAR_RX)
			s->used = 0;
		break;
	case LCR:
		s->lcr = value;
		break;
	case MCR:
		s->mcr = value & MCR_MASK;
		break;
	case SCR:
		s->scr = value;
		break;
	default:	/* line and modem status are read-only */
		break;
	}
}

static uint64_t serial_read(void *dev, uint64_t off, unsigned size)
{
	struct serial *s = dev;
	uint64_t value = 0;

	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)read_reg(s, off + i) << (8 * i);
	update_line(s);
	pthread_mutex_unlock(&s->lock);
	return value;
}

static void serial_write(void *dev, uint64_t off, unsigned size, uint64_t value)
{
	struct serial *s = dev;

	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < size; i++)
		write_reg(s, off + i, (uint8_t)(value >> (8 * i)));
	update_line(s);
	pthread_mutex_unlock(&s->lock);
}

static const struct bus_ops serial_ops = { .read = serial_read, .write = serial_write };

size_t serial_input(struct serial *serial, const uint8_t *data, size_t len)
{
	size_t n = 0;

	pthread_mutex_lock(&serial->lock);
	while (n < len && put(serial, data[n]))
		n++;
	update_line(serial);
	pthread_mutex_unlock(&serial->lock);
	return n;
}

int serial_create(struct vm *vm, uint16_t port, unsigned gsi, serial_output_fn output, void *ctx,
		  struct serial **ret_serial, struct err *err)
{
	struct serial *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "out of host memory");
	s->vm = vm;
	s->gsi = gsi;
	s->output = output;
	s->ctx = ctx;
	s->divisor[0] = 1;	/* 115200 baud */
	pthread_mutex_init(&s->lock, NULL);
	r = bus_add(&vm->pio, &(struct bus_range){ .base = port, .size = 8, .ops = &serial_ops,
						   .dev = s, .name = "serial port" }, err);
	if (r < 0) {
		serial_destroy(s);
		return r;
	}
	*ret_serial = s;
	return 0;
}

void serial_destroy(struct serial *serial)
{
	if (!serial)
		return;
	pthread_mutex_destroy(&serial->lock);
	free(serial);
}

void serial_save(struct serial *s, struct blob *out)
{
	(void)pthread_mutex_lock(&s->lock);
	blob_put(out, (uint8_t[]){ s->ier, s->lcr, s->mcr, s->scr, s->fifo, s->divisor[0], s->divisor[1],
				   s->tx_empty_pending }, 8);
	blob_put_u32(out, (uint32_t)s->used);
	for (size_t i = 0; i < s->used; i++)
		blob_put(out, &s->queue[(s->head + i) % SERIAL_QUEUE], 1);
	(void)pthread_mutex_unlock(&s->lock);
}

int serial_restore(struct serial *s, struct blob_reader *in)
{
	const uint8_t *reg = blob_take(in, 8), *queue;
	uint32_t used = blob_take_u32(in);

	queue = used <= SERIAL_QUEUE ? blob_take(in, used) : NULL;
	if (!reg || !queue)
		return -EINVAL;
	(void)pthread_mutex_lock(&s->lock);
	s->ier = reg[0] & IER_MASK;
	s->lcr = reg[1];
	s->mcr = reg[2] & MCR_MASK;
	s->scr = reg[3];
	s->fifo = reg[4] != 0;
	s->divisor[0] = reg[5];
	s->divisor[1] = reg[6];
	s->tx_empty_pending = reg[7] != 0;
	memcpy(s->queue, queue, used);
	s->head = 0;
	s->used = used;
	s->line = cause(s) != IIR_NONE && (s->mcr & MCR_OUT2);	/* as the restored IOAPIC has it */
	(void)pthread_mutex_unlock(&s->lock);
	return 0;
}
