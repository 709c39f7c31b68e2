//! QEMU's command line.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Stdio};

use super::accelerator::Accelerator;
use super::disk::Disk;
use super::image::Image;
use super::share::Share;

/// One boot of a guest. Its second serial line, on which the command's output comes, is the
/// process's standard output.
pub(crate) struct Machine<'a> {
    pub(crate) image: &'a Image,
    pub(crate) accelerator: Accelerator,
    pub(crate) memory_mib: u64,
    /// Where its console is logged.
    pub(crate) console: &'a Path,
    pub(crate) disks: &'a [Disk],
    /// Without one the guest only says that it is up, and powers off.
    pub(crate) share: Option<&'a Share>,
}

impl Machine<'_> {
    /// The command that boots it, which dies with the thread that starts it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        command.args(self.accelerator.arguments());
        command.args(["-smp", "2", "-nodefaults", "-display", "none", "-no-reboot"]);
        let memory = format!("memory-backend-memfd,id=mem,share=on,size={}M", self.memory_mib);
        command.args(["-m", &self.memory_mib.to_string(), "-object", &memory]);
        command.args(["-numa", "node,memdev=mem"]);
        command.arg("-kernel").arg(self.image.kernel()).arg("-append").arg(self.kernel_arguments());
        // NVMe is built into the kernel, so no initrd is needed; the namespaces of one controller
        // are named in order, controllers need not be.
        command.args(["-device", "nvme,id=nvme,serial=holdfast"]);
        let root = self.image.root_disk();
        namespace(&mut command, 1, root.as_os_str(), "snapshot=on");
        for (id, disk) in (2..).zip(self.disks) {
            match disk {
                Disk::File(_) => namespace(&mut command, id, &disk.file(), "discard=unmap"),
                Disk::Volatile(_) => virtio(&mut command, id, &disk.file()),
            }
        }
        command.arg("-serial").arg(joined("file:", self.console)).args(["-serial", "stdio"]);
        if let Some(share) = self.share {
            command.arg("-chardev").arg(joined("socket,id=share,path=", share.socket()));
            command.args(["-device", "vhost-user-fs-pci,chardev=share,tag=share"]);
        }
        command.stdin(Stdio::null());
        command
    }

    fn kernel_arguments(&self) -> String {
        let task = match self.share {
            Some(share) => format!("guest.control={}", share.control()),
            // The kernel would speak into the one line that is waited for on the console.
            None => "quiet guest.probe".to_owned(),
        };
        format!(
            "root=/dev/nvme0n1 rw rootfstype=ext4 init=/sbin/guest-init console=ttyS0 panic=-1 \
             {task}"
        )
    }
}

fn namespace(command: &mut Command, id: u32, file: &OsStr, how: &str) {
    drive(command, id, file, how);
    command.arg("-device").arg(format!("nvme-ns,drive=disk{id},bus=nvme,nsid={id}"));
}

/// What QEMU's NVMe is asked to write past the cache it only writes (7.2: the flag is not looked at),
/// and a journal's commit is such a write. Virtio has no such request, so the guest flushes after it.
fn virtio(command: &mut Command, id: u32, file: &OsStr) {
    drive(command, id, file, "discard=unmap");
    command.arg("-device").arg(format!("virtio-blk-pci,drive=disk{id}"));
}

fn drive(command: &mut Command, id: u32, file: &OsStr, how: &str) {
    let drive = format!("if=none,id=disk{id},format=raw,{how},file=");
    command.arg("-drive").arg(joined(&drive, file));
}

/// An option that ends in a path, in which QEMU wants each comma twice.
fn joined(option: &str, path: impl AsRef<Path>) -> OsString {
    format!("{option}{}", path.as_ref().to_string_lossy().replace(',', ",,")).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::disk::Volatile;

    /// QEMU's NVMe lost the commit of a journal that Linux took for durable.
    #[test]
    fn a_volatile_disk_is_no_nvme() {
        let dir = tempfile::tempdir().unwrap();
        let (file, socket) = (dir.path().join("disk"), dir.path().join("sock"));
        std::fs::write(&file, [0; 4096]).unwrap();
        let disks = [Disk::Volatile(Volatile::serve(&file, socket).unwrap())];
        let machine = Machine {
            image: &Image::at("/image"),
            accelerator: Accelerator::Tcg,
            memory_mib: 512,
            console: Path::new("/console"),
            disks: &disks,
            share: None,
        };
        let command = machine.command();
        let line: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        assert!(line.contains(&"virtio-blk-pci,drive=disk2".to_owned()));
        assert!(!line.iter().any(|a| a.starts_with("nvme-ns,drive=disk2")));
    }

    #[test]
    fn disks_are_namespaces_in_order_after_the_root_that_is_never_written_to() {
        let disks = ["/a", "/b,c"].map(|path| Disk::File(path.into()));
        let machine = Machine {
            image: &Image::at("/image"),
            accelerator: Accelerator::Tcg,
            memory_mib: 512,
            console: Path::new("/console"),
            disks: &disks,
            share: None,
        };
        let command = machine.command();
        let line: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        let drives: Vec<_> = line.iter().filter(|a| a.starts_with("if=none")).collect();
        assert_eq!(
            drives,
            [
                "if=none,id=disk1,format=raw,snapshot=on,file=/image/root.ext4",
                "if=none,id=disk2,format=raw,discard=unmap,file=/a",
                "if=none,id=disk3,format=raw,discard=unmap,file=/b,,c",
            ]
        );
        assert!(line.contains(&"nvme-ns,drive=disk3,bus=nvme,nsid=3".to_owned()));
        assert!(line.iter().any(|a| a.ends_with("guest.probe")));
    }
}
