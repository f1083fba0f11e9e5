/* Counts the guest's instructions for QEMU's user-mode emulation, and writes the count at every marker.
 *
 * A marker is the system call getpgid(MARKER), which asks for a process that cannot be. At each, a line with the
 * number of instructions that all threads have executed so far goes to the file of the argument `out`.
 *
 * The declarations are those of the plug-in interface, versions 1 to 4, as far as they are used here
 * (https://www.qemu.org/docs/master/devel/tcg-plugins.html): its header is not packaged everywhere.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define MARKER 0x5eed0000u /* above every process id: Linux ends at 2^22 */
#define GETPGID 155        /* on arm64: include/uapi/asm-generic/unistd.h */
#define THREADS 256
#define CACHE_LINE 64
#define NO_REGISTERS 0

typedef uint64_t plugin_id;
struct qemu_plugin_tb;

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id,
                                          void (*)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                                                   uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);

EXPORT int qemu_plugin_version = API_VERSION;

/* One counter a thread, since they would lose each other's additions; each on a cache line of its own. */
static struct {
    _Alignas(CACHE_LINE) uint64_t instructions;
} counters[THREADS];
static int out = -1;

static void on_block(unsigned thread, void *size) {
    counters[thread % THREADS].instructions += (uintptr_t)size;
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *block) {
    void *size = (void *)(uintptr_t)qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_block, NO_REGISTERS, size);
}

static void on_system_call(plugin_id id, unsigned thread, int64_t number, uint64_t first, uint64_t a2, uint64_t a3,
                           uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    if (number != GETPGID || (uint32_t)first != MARKER)
        return;
    uint64_t total = 0;
    for (int i = 0; i < THREADS; i++)
        total += counters[i].instructions;
    char line[32];
    int length = snprintf(line, sizeof line, "%" PRIu64 "\n", total);
    if (write(out, line, length) != length)
        _exit(1);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "out=", 4) == 0)
            out = open(argv[i] + 4, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (out < 0)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_system_call);
    return 0;
}
